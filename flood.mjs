
import * as h from './h.mjs'; const path=process.argv[2];
const {encodeFrontendMessage}=await import('/work/main/dist/protocol/message.js'); const {encodeRequest}=await import('/tmp/hostile/m/dist/protocol/reply.js');
const ram=new h.GuestRam(Array.from({length:8},(_,i)=>({guestPhysAddr:BigInt(i)<<30n,bytes:1<<29,sealed:true}))); const f=h.Frontend.connect(path); f.negotiate();
const m=encodeRequest(5,encodeFrontendMessage({request:5,regions:ram.regions}),{needReply:false}); const end=performance.now()+4000; let n=0,c=0;
while(performance.now()<end){ for(let k=0;k<60;k++){const r=f.sendBytes(m,ram.fds); if(r===-11) break; if(r<0) process.exit(1); n++;} for(let k=0;k<16;k++){ const fd=h.sock.openSocket({nonBlocking:true}); if(h.sock.connectTo(fd,path)<0) {h.libc.close(fd);break;} h.libc.close(fd);c++; } }
console.log('tables',n,'connects',c); process.exit(0);
