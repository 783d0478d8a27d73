// The bare minimum: one thread, one epoll loop, ASCII upper-case in place. No lines, no limits, no timeouts, no
// tracking. What is left is the cost of the system calls: a lower bound to compare with, not a server to run.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

// Replies that the kernel has not taken yet. Only a connection with such replies owns memory.
typedef struct {
  int fd;
  char *owed;
  size_t at, size;
} Conn;

static char buffer[256 * 1024];

static void drop(Conn *c) {
  close(c->fd);
  free(c->owed);
  free(c);
}

// Returns 1 if all is written, 0 if the socket is full, -1 if the connection is lost.
static int flush(Conn *c) {
  while (c->at < c->size) {
    ssize_t n = send(c->fd, c->owed + c->at, c->size - c->at, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN ? 0 : -1;
    c->at += n;
  }
  free(c->owed);
  c->owed = NULL;
  return 1;
}

static int watch(Conn *c, int ep, int op) {
  struct epoll_event e = {.events = c->owed ? EPOLLOUT : EPOLLIN, .data.ptr = c};
  return epoll_ctl(ep, op, c->fd, &e);
}

// One read per turn, level-triggered: a client with endless input cannot keep the loop to itself. Replies that the
// kernel does not take are kept, and nothing more is read until it has taken them.
static void serve(Conn *c, int ep) {
  if (c->owed) {
    int state = flush(c);
    if (state < 0 || (state == 1 && watch(c, ep, EPOLL_CTL_MOD))) drop(c);
    return;
  }
  ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) return drop(c);
  for (ssize_t i = 0; i < n; i++) buffer[i] -= (unsigned char)(buffer[i] - 'a') < 26 ? 32 : 0;
  ssize_t sent = send(c->fd, buffer, n, MSG_NOSIGNAL);
  if (sent == n) return;
  if (sent < 0 && errno != EAGAIN) return drop(c);
  if (sent < 0) sent = 0;
  c->at = 0;
  c->size = n - sent;
  if (!(c->owed = malloc(c->size))) return drop(c);
  memcpy(c->owed, buffer + sent, c->size);
  if (watch(c, ep, EPOLL_CTL_MOD)) drop(c);
}

static void accept_all(int listener, int ep) {
  int fd, one = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    Conn *c = calloc(1, sizeof *c);
    if (!c) exit(1);
    c->fd = fd;
    if (watch(c, ep, EPOLL_CTL_ADD)) drop(c);
  }
}

int main(int argc, char **argv) {
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
  addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof addr;
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), ep = epoll_create1(0), one = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void *)&addr, sizeof addr) || listen(listener, 4096)) return perror("listen"), 1;
  getsockname(listener, (void *)&addr, &size);
  fprintf(stderr, "listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
  epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
  for (;;) {
    int n = epoll_wait(ep, events, 256, -1);
    for (int i = 0; i < n; i++) {
      if (events[i].data.ptr) serve(events[i].data.ptr, ep);
      else accept_all(listener, ep);
    }
  }
}
