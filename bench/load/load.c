// The load generator: one thread, one epoll loop, one JSON line at the end.
//
//   load lines   --port N [--clients 50] [--pipeline 1] [--bytes 16] [--seconds 2] [--endless 0]
//   load endless --port N            one client that writes as fast as it can, and reads
//   load churn   --port N            connect, one line, its reply, close; --clients at a time
//   load idle    --port N            open --clients, one exchange on each, say "ready", hold until stdin ends
//   load trickle --port N            one line of --bytes, a byte at a time
//
// Instead of --port, --unix PATH. For all but trickle: --tls 1, with --resume 1 and --cert FILE (a certificate and its
// key); --proxy 1 sends a PROXY header first, and --starttls 1 begins TLS at a command.
//
// --bytes is a line's text without its line end. Every reply byte is compared with the right answer; a wrong
// one ends the program with status 1. Lost connections are counted as errors. Figures start after --warmup.
#define _GNU_SOURCE
#include "load.h"

#include <poll.h>
#include <sys/epoll.h>

#include "wire.h"

enum { TALKING, CLOSING, HELD, DEAD };
enum { AT_ONCE = 64, ENDLESS_BLOCK = 32 * 1024, CHUNK = 256 * 1024 };

typedef struct {
  Wire wire;
  int state, endless;
  long first;               // index of the batch's first line; it advances, so that no two batches are equal
  size_t block;             // bytes in one batch; an endless client repeats it
  size_t limit, sent, got;  // bytes after which to stop; bytes written; bytes received and checked
  uint64_t start;
} Conn;

static int ep, stopping;
static long live;
static size_t width;               // a line with its LF
static char *asked, *answered;     // the same lines as they are sent and as they must come back
static char scratch[CHUNK];

// Lines of one width, each with its number in it and letters that shift from line to line.
static void make_lines(long count) {
  width = bytes + 1;
  asked = malloc(count * width);
  answered = malloc(count * width);
  if (!asked || !answered) fail(1, "no memory for %ld lines", count);
  for (long i = 0; i < count; i++) {
    char *line = asked + i * width, number[24];
    for (long j = 0; j < bytes; j++) line[j] = "abcdefghijklmnopqrstuvwxyz .,:-"[(i * 7 + j) % 31];
    int digits = snprintf(number, sizeof number, "%ld", i);
    memcpy(line, number, digits < bytes ? digits : bytes);
    line[bytes] = '\n';
  }
  for (size_t i = 0; i < count * width; i++)
    answered[i] = asked[i] >= 'a' && asked[i] <= 'z' ? asked[i] - 32 : asked[i];
}

static void check(const char *got, const char *want, size_t size) {
  if (!memcmp(got, want, size)) return;
  size_t at = 0;
  while (got[at] == want[at]) at++;
  fail(1, "wrong reply: byte 0x%02x where 0x%02x was due", got[at] & 255, want[at] & 255);
}

static void open_conn(Conn *c);

static void close_conn(Conn *c) {
  close_wire(&c->wire);
  c->state = DEAD;
  if (mode == CHURN && !stopping) open_conn(c);
  else live--;
}

static void lose(Conn *c, const char *why) {
  if (!errors++) fprintf(stderr, "load: lost a connection: %s\n", why);
  if (errors > 1000) fail(1, "lost more than 1000 connections");
  close_conn(c);
}

static void pump_out(Conn *c) {
  while (c->sent < c->limit) {
    size_t at = c->sent % c->block, size = c->block - at;
    if (size > c->limit - c->sent) size = c->limit - c->sent;
    ssize_t n = wire_send(&c->wire, asked + c->first * width + at, size);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return lose(c, n ? strerror(errno) : "the server closed it");
    c->sent += n;
    if (c->endless) return;
  }
}

static void start_batch(Conn *c) {
  if (!c->endless) c->first = (c->first + 1) % clients;
  c->sent = c->got = 0;
  if (mode != CHURN) c->start = now();  // a churning client's time runs from connect()
  pump_out(c);
}

static void open_conn(Conn *c) {
  c->start = now();
  open_wire(&c->wire, dial(SOCK_NONBLOCK));
  c->state = TALKING;
  // Edge-triggered, so that no epoll_ctl is paid per batch. An endless client does one bounded step per event
  // instead, so that it cannot hold up the clients whose latency is measured.
  struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | (c->endless ? 0 : EPOLLET), .data.ptr = c};
  if (epoll_ctl(ep, EPOLL_CTL_ADD, c->wire.fd, &e)) fail(1, "epoll_ctl: %s", strerror(errno));
  start_batch(c);  // on loopback the handshake is done by now; otherwise EAGAIN, and EPOLLOUT comes later
}

// A whole batch has come back. Neither side resets: all that the server sent has been read, and the client ends first,
// so that the TIME_WAIT is on its side. A churning client does not wait for the server's end: on loopback most of a
// connection's cost already falls on the side that connects, and the load should not be the limit.
static void finish_batch(Conn *c) {
  if (stopping && mode != CHURN) {
    c->state = CLOSING;
    end_wire(&c->wire);
    return;
  }
  record(now() - c->start);
  done++;
  total++;
  if (mode == CHURN) close_conn(c);
  else if (mode == IDLE) c->state = HELD;
  else start_batch(c);
}

static void pump_in(Conn *c) {
  for (;;) {
    ssize_t n = wire_recv(&c->wire, scratch, c->endless ? ENDLESS_BLOCK : CHUNK);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) return lose(c, strerror(errno));
    if (n == 0 && c->state == CLOSING) return close_conn(c);
    if (n == 0) return lose(c, "the server closed it");
    if (c->got + n > c->sent) fail(1, "wrong reply: more bytes than were sent");
    for (ssize_t at = 0; at < n;) {
      size_t from = c->got % c->block, size = c->block - from;
      if (size > (size_t)(n - at)) size = n - at;
      check(scratch + at, answered + c->first * width + from, size);
      at += size;
      c->got += size;
      if (c->endless) endless_bytes += size;
    }
    // A short read means that there is no more for now (epoll(7)), but of TLS only that a record has ended; and a closing
    // client waits for the end.
    if (c->got == c->limit) {
      finish_batch(c);
      if (c->state != CLOSING) return;
    } else if (c->endless || (n < CHUNK && !tls)) return;
  }
}

static void on_event(Conn *c, uint32_t events) {
  if (c->state == DEAD) return;
  if (events & EPOLLOUT && c->state == TALKING) pump_out(c);
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && c->state != DEAD) pump_in(c);
}

// Runs the loop until the time is up, every client is gone, or (for "idle") every client is held.
static void run(Conn *conns, double for_seconds) {
  struct epoll_event events[256];
  uint64_t until = now() + for_seconds * 1e9;
  for (uint64_t t; live > 0 && (t = now()) < until;) {
    if (mode == IDLE) {
      while (opened < clients && opened < done + errors + AT_ONCE) open_conn(&conns[opened]);
      if (done + errors >= clients) return;
    }
    int n = epoll_wait(ep, events, 256, (int)((until - t) / 1000000) + 1);
    for (int i = 0; i < n; i++) on_event(events[i].data.ptr, events[i].events);
  }
}

static Conn *make_conns(void) {
  long all = clients + endless, repeat = ENDLESS_BLOCK / (bytes + 1) + 1;
  Conn *conns = calloc(all, sizeof *conns);
  if (!conns) fail(1, "no memory for %ld clients", all);
  make_lines(clients + (endless && repeat > pipeline ? repeat : pipeline));
  for (long i = 0; i < all; i++) {
    Conn *c = &conns[i];
    c->endless = i >= clients;
    c->first = c->endless ? 0 : i;
    c->block = (c->endless ? repeat : pipeline) * width;
    c->limit = c->endless ? SIZE_MAX : c->block;
  }
  live = all;
  return conns;
}

// Every batch that has left must still be answered.
static void drain(Conn *conns) {
  stopping = 1;
  for (Conn *c = conns + clients; c < conns + clients + endless; c++) {
    if (c->state != TALKING) continue;
    c->limit = (c->sent + c->block - 1) / c->block * c->block;
    if (c->got == c->limit) finish_batch(c);
  }
  run(conns, 10);
  if (live) fail(1, "%ld clients still wait for replies after 10 s", live);
}

static void measure(void) {
  Conn *conns = make_conns();
  for (long i = 0; i < clients + endless; i++) open_conn(&conns[i]);
  run(conns, warmup);
  begin();
  run(conns, seconds);
  if (!live) fail(1, "every connection was lost");
  if (mode == ENDLESS) end(endless_bytes / width, "lines");
  else if (mode == CHURN) end(done, "conns");
  else end(done * pipeline, "lines");
  drain(conns);
}

static void hold(void) {
  Conn *conns = make_conns();
  begin();
  run(conns, 120);
  if (done + errors < clients) fail(1, "only %ld of %ld connections are open after 120 s", done, clients);
  end(done, "conns");
  alarm(0);
  puts("ready");
  fflush(stdout);
  struct pollfd waits[2] = {{.fd = 0, .events = POLLIN}, {.fd = ep, .events = POLLIN}};
  while (poll(waits, 2, -1) >= 0) {
    if (waits[0].revents && read(0, scratch, CHUNK) <= 0) return;
    if (waits[1].revents) {
      struct epoll_event event;
      if (epoll_wait(ep, &event, 1, 0) == 1) on_event(event.data.ptr, event.events);
      if (errors) fail(1, "the server dropped an idle connection");
    }
  }
}

static void read_all(int fd, const char *want, size_t size) {
  for (size_t got = 0; got < size;) {
    ssize_t n = recv(fd, scratch, size - got < CHUNK ? size - got : CHUNK, 0);
    if (n <= 0) fail(1, "lost a connection: %s", n ? strerror(errno) : "the server closed it");
    check(scratch, want + got, n);
    got += n;
  }
}

// After each byte, a line on a second connection: its reply shows that the server has had time to read the byte.
// Otherwise the kernel would join the bytes while the server is slow, and hide that it is.
static void trickle(void) {
  make_lines(1);
  int slow = dial(0), ping = dial(0);
  begin();
  long count = 0;
  do {
    for (size_t i = 0; i < width; i++, count++, total++) {
      uint64_t start = now();
      if (send(slow, asked + i, 1, MSG_NOSIGNAL) != 1 || send(ping, "x\n", 2, MSG_NOSIGNAL) != 2)
        fail(1, "lost a connection: %s", strerror(errno));
      read_all(ping, "X\n", 2);
      record(now() - start);
    }
    read_all(slow, answered, width);
  } while (now() < began + seconds * 1e9);
  end(count, "bytes");
}

int main(int argc, char **argv) {
  read_args(argc, argv);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if ((ep = epoll_create1(0)) < 0) fail(1, "epoll_create1: %s", strerror(errno));
  alarm(120 + 2 * (seconds + warmup));  // a server that never answers must not hold up the whole bench
  if (mode == IDLE) hold();
  else if (mode == TRICKLE) trickle();
  else measure();
  puts(result);
  return 0;
}
