
import socket,struct,sys,array,os,mmap
G=4<<30
m=os.memfd_create('rngd',os.MFD_ALLOW_SEALING); os.posix_fallocate(m,0,G)
u=socket.socket(socket.AF_UNIX);u.connect(sys.argv[1])
u.sendmsg([struct.pack('III',5,1|8,40)+struct.pack('II',1,0)+struct.pack('QQQQ',0,G,0,0)],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,array.array('i',[m]))]); print(u.recv(100)[-8:],flush=True)
os.close(m); os._exit(0)
