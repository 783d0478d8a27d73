// One connection of the load generator: what goes before its lines (a PROXY header, STARTTLS), and TLS, if it has that.
// Built with -DTLS it needs OpenSSL; without, it speaks plain text alone.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/ssl.h>
#else
typedef struct ssl_st SSL;
typedef struct ssl_session_st SSL_SESSION;
#endif

static const char PROXY_HEADER[] = "PROXY TCP4 127.0.0.1 127.0.0.1 50000 8080\r\n", STARTTLS[] = "STARTTLS\n", GO[] = "GO\n";

enum { SOURCES = 250 };
enum { HEADER, COMMAND, ANSWER, READY };

typedef struct {
  int fd, stage;         // what has to be sent or read before the lines
  SSL *ssl;              // once TLS has begun
  SSL_SESSION *session;  // the last one, for --resume
} Wire;

static long opened;  // connections since the start

// Connects before it no longer waits: a full backlog would fail it with EAGAIN, of which epoll does not tell.
static int dial_unix(int flags) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof to.sun_path) fail(2, "--unix is too long");
  strcpy(to.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  opened++;
  if (fd < 0 || connect(fd, (void *)&to, sizeof to)) fail(1, "connect: %s", strerror(errno));
  if (flags) fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

// Many source addresses: one alone runs out of ephemeral ports while closed connections sit in TIME_WAIT.
static int dial(int flags) {
  if (path) return dial_unix(flags);
  struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port)};
  from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + opened++ % SOURCES);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | flags, 0), one = 1;
  if (fd < 0) fail(1, "socket: %s", strerror(errno));
  // A batch that the kernel cuts into segments, and the end of a handshake with the line behind it, must not wait for an
  // acknowledgement. Churn in plain text sends only once.
  if (mode != CHURN || tls) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  // The port is chosen at connect(), where it need be free only towards this server.
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  if (bind(fd, (void *)&from, sizeof from)) fail(1, "bind: %s", strerror(errno));
  if (connect(fd, (void *)&to, sizeof to) && errno != EINPROGRESS) fail(1, "connect: %s", strerror(errno));
  return fd;
}

static int again(void) {
  errno = EAGAIN;
  return -1;
}

#ifdef TLS
static SSL_CTX *context;

static int keep_session(SSL *ssl, SSL_SESSION *session) {
  Wire *w = SSL_get_app_data(ssl);
  SSL_SESSION_free(w->session);
  w->session = session;
  return 1;
}

static void count_resumed(const SSL *ssl, int where, int result) {
  (void)result;
  if (where & SSL_CB_HANDSHAKE_DONE && SSL_session_reused(ssl)) resumed++;
}

// The server's certificate is not verified: that would be the load's own time, and the bench has made it itself.
static void init_tls(void) {
  context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  if (resume) SSL_CTX_sess_set_new_cb(context, keep_session), SSL_CTX_set_info_callback(context, count_resumed);
  if (cert && (SSL_CTX_use_certificate_file(context, cert, SSL_FILETYPE_PEM) != 1 ||
               SSL_CTX_use_PrivateKey_file(context, cert, SSL_FILETYPE_PEM) != 1))
    fail(2, "--cert %s has no certificate with its key", cert);
}

static void begin_tls(Wire *w) {
  if (!context) init_tls();
  w->ssl = SSL_new(context);
  if (!w->ssl || !SSL_set_fd(w->ssl, w->fd)) fail(1, "no memory for TLS");
  SSL_set_app_data(w->ssl, w);
  // OpenSSL uses a session once, but some servers send no new ticket when one is resumed: use a copy of it.
  SSL_SESSION *session = w->session ? SSL_SESSION_dup(w->session) : NULL;
  if (session) SSL_set_session(w->ssl, session), SSL_SESSION_free(session);
  SSL_set_connect_state(w->ssl);
}

// Turns OpenSSL's result into that of a system call.
static ssize_t tls_result(Wire *w, int n) {
  if (n > 0) return n;
  int error = SSL_get_error(w->ssl, n);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return again();
  if (error == SSL_ERROR_ZERO_RETURN) return 0;
  if (error != SSL_ERROR_SYSCALL || !errno) errno = EPROTO;
  return -1;
}

static ssize_t tls_send(Wire *w, const char *from, size_t size) { return tls_result(w, SSL_write(w->ssl, from, size)); }
static ssize_t tls_recv(Wire *w, char *into, size_t size) { return tls_result(w, SSL_read(w->ssl, into, size)); }
static void tls_end(Wire *w) { SSL_shutdown(w->ssl); }
static void tls_free(Wire *w) { SSL_free(w->ssl); }
#else
static void begin_tls(Wire *w) { (void)w, fail(2, "built without OpenSSL"); }
static ssize_t tls_send(Wire *w, const char *from, size_t size) { return (void)w, (void)from, (void)size, again(); }
static ssize_t tls_recv(Wire *w, char *into, size_t size) { return (void)w, (void)into, (void)size, again(); }
static void tls_end(Wire *w) { (void)w; }
static void tls_free(Wire *w) { (void)w; }
#endif

static void open_wire(Wire *w, int fd) {
  w->fd = fd;
  w->ssl = NULL;
  w->stage = proxy ? HEADER : starttls ? COMMAND : READY;
  if (w->stage == READY && tls) begin_tls(w);
}

static int say(Wire *w, const char *text) {
  ssize_t n = send(w->fd, text, strlen(text), MSG_NOSIGNAL);
  if (n >= 0 && n != (ssize_t)strlen(text)) fail(1, "the kernel took a part of %s", text);
  return n < 0 ? -1 : 0;
}

// Does what goes before the lines, as far as the peer lets it; returns -1 if lines have to wait.
static int prepare(Wire *w) {
  if (w->stage == HEADER) {
    if (say(w, PROXY_HEADER)) return -1;
    w->stage = starttls ? COMMAND : READY;
  }
  if (w->stage == COMMAND) {
    if (say(w, STARTTLS)) return -1;
    w->stage = ANSWER;
  }
  if (w->stage == ANSWER) {
    char got[sizeof GO];
    ssize_t n = recv(w->fd, got, strlen(GO), 0);
    if (n < 0) return -1;
    if (n != (ssize_t)strlen(GO) || memcmp(got, GO, n)) fail(1, "STARTTLS was not answered with GO");
    w->stage = READY;
  }
  if (tls && !w->ssl) begin_tls(w);
  return 0;
}

static ssize_t wire_send(Wire *w, const char *from, size_t size) {
  if ((w->stage != READY || (tls && !w->ssl)) && prepare(w)) return -1;
  return w->ssl ? tls_send(w, from, size) : send(w->fd, from, size, MSG_NOSIGNAL);
}

static ssize_t wire_recv(Wire *w, char *into, size_t size) {
  if (w->stage != READY) return again();  // wire_send reads the answer to STARTTLS
  return w->ssl ? tls_recv(w, into, size) : recv(w->fd, into, size, 0);
}

// Ends this side; the peer's last bytes can still be read.
static void end_wire(Wire *w) {
  if (w->ssl) tls_end(w);
  shutdown(w->fd, SHUT_WR);
}

static void close_wire(Wire *w) {
  if (w->ssl) tls_end(w), tls_free(w);
  close(w->fd);
}
