// The load generator's clock, histogram, result line and arguments.
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { LINES, CHURN, IDLE, TRICKLE, ENDLESS };
static const char *MODES[] = {"lines", "churn", "idle", "trickle", "endless"};
static int mode;
static long port = 0, clients = 50, pipeline = 1, bytes = 16, endless = 0, tls = 0, resume = 0, proxy = 0, starttls = 0;
static const char *path, *cert;  // of the Unix socket; of the file with the client's certificate and key
static double seconds = 2, warmup = 0.2;

static long done, total, errors;    // batches or connections since begin(), since the start; connections lost
static long resumed;                // TLS handshakes since the start that resumed a session
static uint64_t endless_bytes;      // bytes that the endless clients received since begin()
static uint32_t buckets[64 * 128];  // latencies in ns: 64 steps per power of two, so within 1.6 %
static uint64_t worst, began, cpu_began;
static char result[512];

static void fail(int status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "load: ");
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  exit(status);
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t cpu_time(void) {
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000000ull + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1000ull;
}

static void record(uint64_t ns) {
  int shift = ns < 128 ? 0 : 57 - __builtin_clzll(ns);
  buckets[shift * 128 + (ns >> shift)]++;
  if (ns > worst) worst = ns;
}

static double percentile_us(double share) {
  uint64_t total = 0, seen = 0;
  for (int i = 0; i < 64 * 128; i++) total += buckets[i];
  for (int i = 0; i < 64 * 128; i++) {
    seen += buckets[i];
    if (total && seen >= share * total) return (double)((uint64_t)(i % 128) << i / 128) / 1000;
  }
  return 0;
}

// The timing starts here, so that a server's warming up and the connecting are not in the figures.
static void begin(void) {
  memset(buckets, 0, sizeof buckets);
  done = worst = endless_bytes = 0;
  began = now();
  cpu_began = cpu_time();
}

static void end(long count, const char *unit) {
  double elapsed = (now() - began) / 1e9, cpu = (cpu_time() - cpu_began) / 1e9;
  snprintf(result, sizeof result,
           "{\"mode\":\"%s\",\"unit\":\"%s/s\",\"rate\":%.1f,\"count\":%ld,\"total\":%ld,\"seconds\":%.3f,\"p50_us\":%.1f,"
           "\"p99_us\":%.1f,\"max_us\":%.1f,\"errors\":%ld,\"cpu\":%.3f,\"resumed\":%ld}",
           MODES[mode], unit, count / elapsed, count, total * pipeline, elapsed, percentile_us(0.5), percentile_us(0.99), worst / 1000.0,
           errors, cpu / elapsed, resumed);
}

static double number(const char *name, const char *text, double least, double most) {
  char *rest = NULL;
  double value = text ? strtod(text, &rest) : 0;
  if (!text || rest == text || *rest || !(value >= least && value <= most))
    fail(2, "%s wants a number from %.10g to %.10g", name, least, most);
  return value;
}

static const struct {
  const char *name;
  long *into;
  double least, most;
} NUMBERS[] = {
    {"--port", &port, 1, 65535},    {"--clients", &clients, 1, 1e6}, {"--pipeline", &pipeline, 1, 1e6},
    {"--bytes", &bytes, 0, 1e7},    {"--endless", &endless, 0, 1000}, {"--tls", &tls, 0, 1},
    {"--resume", &resume, 0, 1},    {"--proxy", &proxy, 0, 1},       {"--starttls", &starttls, 0, 1},
};

static void read_option(const char *name, const char *value) {
  for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++) {
    if (strcmp(name, NUMBERS[i].name)) continue;
    *NUMBERS[i].into = number(name, value, NUMBERS[i].least, NUMBERS[i].most);
    return;
  }
  if (!strcmp(name, "--seconds")) seconds = number(name, value, 0, 1e6);
  else if (!strcmp(name, "--warmup")) warmup = number(name, value, 0, 1e6);
  else if (!strcmp(name, "--unix") && value) path = value;
  else if (!strcmp(name, "--cert") && value) cert = value;
  else fail(2, "unknown option %s", name);
}

static void read_args(int argc, char **argv) {
  for (mode = 0; mode < 5 && (argc < 2 || strcmp(argv[1], MODES[mode])); mode++);
  if (mode == 5) fail(2, "usage: load lines|churn|idle|trickle|endless --port N [--clients N] [--pipeline N] [--bytes N] "
                         "[--seconds N] [--warmup N] [--endless N] [--unix PATH] [--tls 1] [--resume 1] [--cert FILE] "
                         "[--proxy 1] [--starttls 1]");
  if (mode == IDLE) bytes = 100;
  if (mode == TRICKLE) bytes = 64 * 1024;
  for (int i = 2; i < argc; i += 2) read_option(argv[i], argv[i + 1]);
  if (!port && !path) fail(2, "--port or --unix is missing");
  if (mode == CHURN || mode == IDLE) pipeline = 1, endless = 0;
  if (mode == ENDLESS) clients = 0, endless = endless ? endless : 1;
}
