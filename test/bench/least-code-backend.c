// The yardstick of the benchmark: what a back-end of the least code does for each request, in C.
//
// Four system calls a request: wait, read the kick, getrandom(2) into guest memory, signal. It checks nothing and is
// no example to follow; `npm run bench` compiles it to compare with. Usage: least-code-backend SOCKET...
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct header { uint32_t request, flags, size; };
struct region { uint64_t gpa, size, uaddr, offset; };
struct desc { uint64_t addr; uint32_t len; uint16_t flags, next; };
struct used_elem { uint32_t id, len; };

struct device {
  int listener, conn, kick, call;
  uint32_t regions;
  struct region region[8];
  char *map[8];
  uint32_t num;
  uint16_t last;
  struct desc *desc;
  _Atomic uint16_t *avail;
  char *used;
};

enum { LISTENER, CONNECTION, KICK };

static int epfd;

static void watch(int fd, uint32_t device, uint32_t what) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)device << 8 | what};
  epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
}

static char *at(struct device *d, uint64_t address, int guest) {
  for (uint32_t i = 0; i < d->regions; i++) {
    uint64_t start = guest ? d->region[i].gpa : d->region[i].uaddr;
    if (address >= start && address - start < d->region[i].size) return d->map[i] + (address - start);
  }
  abort();
}

static void serve(struct device *d) {
  uint64_t count;
  if (read(d->kick, &count, 8) != 8 || d->used == NULL) return;
  _Atomic uint16_t *used_index = (_Atomic uint16_t *)(d->used + 2);
  struct used_elem *elements = (struct used_elem *)(d->used + 4);
  uint16_t before = d->last;
  while (d->last != atomic_load_explicit(&d->avail[1], memory_order_acquire)) {
    uint16_t head = d->avail[2 + d->last % d->num];
    struct desc desc = d->desc[head % d->num];
    ssize_t got = getrandom(at(d, desc.addr, 1), desc.len, 0);
    elements[d->last % d->num] = (struct used_elem){head, (uint32_t)got};
    d->last++;
    atomic_store_explicit(used_index, d->last, memory_order_release);
  }
  uint64_t one = 1;
  if (d->last != before && write(d->call, &one, 8) != 8) abort();
}

static void reply(int fd, struct header header, uint64_t value) {
  struct { struct header header; uint64_t value; } __attribute__((packed)) message = {header, value};
  message.header.flags = 5;
  message.header.size = 8;
  if (write(fd, &message, sizeof message) != sizeof message) abort();
}

static int receive(struct device *d, uint32_t index) {
  struct header header;
  char payload[4096], control[256];
  struct iovec iov = {&header, sizeof header};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  if (recvmsg(d->conn, &msg, MSG_CMSG_CLOEXEC) != sizeof header) return 0;
  int fds[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
  struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
  if (cmsg) memcpy(fds, CMSG_DATA(cmsg), cmsg->cmsg_len - CMSG_LEN(0));
  if (header.size && recv(d->conn, payload, header.size, MSG_WAITALL) != (ssize_t)header.size) return 0;
  uint32_t *u32 = (uint32_t *)payload;
  uint64_t *u64 = (uint64_t *)payload;
  switch (header.request) {
    case 1: reply(d->conn, header, 1ull << 30 | 1ull << 32); return 1;
    case 15: reply(d->conn, header, 1 << 0 | 1 << 3 | 1 << 5 | 1 << 13 | 1 << 16); return 1;
    case 5:
      d->regions = u32[0];
      memcpy(d->region, payload + 8, d->regions * sizeof(struct region));
      for (uint32_t i = 0; i < d->regions; i++)
        d->map[i] = mmap(NULL, d->region[i].size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], (off_t)d->region[i].offset);
      break;
    case 8: d->num = u32[1]; break;
    case 9:
      d->desc = (struct desc *)at(d, u64[1], 0);
      d->used = at(d, u64[2], 0);
      d->avail = (_Atomic uint16_t *)at(d, u64[3], 0);
      break;
    case 10: d->last = (uint16_t)u32[1]; break;
    case 12: d->kick = fds[0]; watch(d->kick, index, KICK); break;
    case 13: d->call = fds[0]; break;
    default: break;
  }
  if (header.flags & 8) reply(d->conn, header, 0);
  return 1;
}

int main(int argc, char **argv) {
  epfd = epoll_create1(0);
  struct device *devices = calloc((size_t)argc, sizeof *devices);
  for (int i = 1; i < argc; i++) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, argv[i], sizeof address.sun_path - 1);
    devices[i].listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(devices[i].listener, (struct sockaddr *)&address, sizeof address) || listen(devices[i].listener, 1)) return 1;
    watch(devices[i].listener, (uint32_t)i, LISTENER);
  }
  puts("listening");
  fflush(stdout);
  for (;;) {
    struct epoll_event events[64];
    int n = epoll_wait(epfd, events, 64, -1);
    for (int e = 0; e < n; e++) {
      uint32_t index = (uint32_t)(events[e].data.u64 >> 8);
      struct device *d = &devices[index];
      switch (events[e].data.u64 & 0xff) {
        case LISTENER:
          d->conn = accept(d->listener, NULL, NULL);
          watch(d->conn, index, CONNECTION);
          break;
        case CONNECTION:
          if (!receive(d, index)) {
            for (uint32_t i = 0; i < d->regions; i++) munmap(d->map[i], d->region[i].size);
            close(d->kick);
            close(d->call);
            close(d->conn);
            *d = (struct device){.listener = d->listener};
          }
          break;
        case KICK: serve(d); break;
      }
    }
  }
}
