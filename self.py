
import socket,struct,sys,array
u=socket.socket(socket.AF_UNIX);u.connect(sys.argv[1])
def send(req,payload,fds=[]):
  u.sendmsg([struct.pack('III',req,1|8,len(payload))+payload],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,array.array('i',fds))] if fds else []); return u.recv(100)
print(send(13,struct.pack('Q',0),[u.fileno()]),flush=True)
