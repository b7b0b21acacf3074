// The load client of bench/fanout.py: thousands of WebSockets in one thread, over epoll.
//
// It opens members, joins each to a topic, and then does one of four things (--mode):
//
//   fanout      one more socket publishes into the topics; --window messages are on their way at a time
//   paced       the same, at --rate deliveries a second, each measured from the time it was due
//   heartbeats  every socket sends a heartbeat whenever the one before was answered
//   idle        nothing
//
// With --mixed 1, every other member speaks vsn 1. With --probes, so many sockets besides send a heartbeat twenty times a second meanwhile, also measured from
// the time it was due. The last line of its output is a JSON object. Every delivery is counted, and counted
// against what was published: "lost" is their difference after the rest was waited for.
//
// It trusts the server: it is no test of it. Messages to the server are masked, with a fixed mask.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 256 << 10, LEFT_SIZE = 128 << 10, OUT_SIZE = 4 << 20, MAX_TEXT = 64 << 10 };
enum { BUCKET_NS = 5000, BUCKETS = 2000000 }; // ten seconds of latency
enum { PROBE_HZ = 20 };
static const uint64_t SECOND = 1000000000ull, PATIENCE = 60 * SECOND, DRAIN = 5 * SECOND;

enum dialect { PHOENIX, SOCKETIO };
enum role { MEMBER, PUBLISHER, PROBE };
enum state { CLOSED, HANDSHAKE, GREETING, JOINING, READY };

struct options {
  enum dialect dialect;
  const char *mode, *path, *old_path, *tokens;
  int port, members, topics, window, in_flight, payload, probes, pid, mixed;
  double seconds, warmup, rate;
};
static struct options opt = {.mode = "fanout", .path = "/socket/websocket?vsn=2.0.0", .port = 4000,
                             .members = 100, .topics = 1, .window = 8, .in_flight = 64, .payload = 200,
                             .seconds = 1, .warmup = 0.3, .rate = 100000};

struct connection {
  int fd, number, missing, topic;
  enum role role;
  enum state state;
  bool old;     // speaks vsn 1
  bool waiting; // a probe's heartbeat is not answered yet
  uint32_t ref;
  uint64_t due;
  size_t left;
  char *leftover;
};

struct histogram {
  uint32_t *buckets;
  uint64_t count;
};

static struct connection *connections, *publisher;
static int total, ready, lost_connections, epoll;
static char **tokens;
static uint64_t deliveries, answers;
static bool measuring;
static struct histogram delays, beats;

// Small things -----------------------------------------------------------------------------------------------

static void die(const char *format, ...) {
  va_list rest;
  va_start(rest, format);
  vfprintf(stderr, format, rest);
  va_end(rest);
  fputc('\n', stderr);
  exit(1);
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static double own_cpu(void) {
  struct rusage use;
  getrusage(RUSAGE_SELF, &use);
  return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) + (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static double server_cpu(void) { // seconds, all threads; /proc/PID/stat fields 14 and 15
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", opt.pid);
  FILE *file = opt.pid ? fopen(path, "r") : NULL;
  if (!file) return 0;
  text[fread(text, 1, sizeof text - 1, file)] = 0;
  fclose(file);
  unsigned long user = 0, system = 0;
  sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
  return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static long server_kib(void) {
  char path[64], line[256];
  long kib = 0;
  snprintf(path, sizeof path, "/proc/%d/status", opt.pid);
  FILE *file = opt.pid ? fopen(path, "r") : NULL;
  if (!file) return 0;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "VmRSS: %ld", &kib) == 1) break;
  fclose(file);
  return kib;
}

static void observe(struct histogram *histogram, uint64_t ns) {
  uint64_t bucket = ns / BUCKET_NS;
  histogram->buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
  histogram->count++;
}

static double percentile(const struct histogram *histogram, double part) { // milliseconds
  uint64_t below = (uint64_t)((double)histogram->count * part), seen = 0;
  for (int i = 0; i < BUCKETS; i++)
    if ((seen += histogram->buckets[i]) > below) return (i + 0.5) * BUCKET_NS / 1e6;
  return 0;
}

// Writing ----------------------------------------------------------------------------------------------------

static size_t frame(char *out, const char *text, size_t length) {
  static const uint8_t mask[4] = {0x12, 0x34, 0x56, 0x78};
  size_t at = 0;
  out[at++] = (char)0x81;
  if (length < 126) {
    out[at++] = (char)(0x80 | length);
  } else {
    out[at++] = (char)(0x80 | 126);
    out[at++] = (char)(length >> 8);
    out[at++] = (char)length;
  }
  memcpy(out + at, mask, 4);
  at += 4;
  for (size_t i = 0; i < length; i++) out[at + i] = (char)(text[i] ^ mask[i & 3]);
  return at + length;
}

static void write_all(struct connection *c, const char *data, size_t length) {
  for (size_t at = 0; at < length;) {
    ssize_t sent = send(c->fd, data + at, length - at, MSG_NOSIGNAL);
    if (sent > 0)
      at += (size_t)sent;
    else if (errno == EAGAIN)
      nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    else
      return; // the next read tells
  }
}

static void say(struct connection *c, const char *format, ...) {
  static char text[MAX_TEXT], out[MAX_TEXT + 16];
  va_list rest;
  va_start(rest, format);
  int length = vsnprintf(text, sizeof text, format, rest);
  va_end(rest);
  write_all(c, out, frame(out, text, (size_t)length));
}

static void join(struct connection *c, int topic) {
  const char *token = tokens ? tokens[c->number] : "";
  c->state = JOINING;
  if (opt.dialect == SOCKETIO)
    say(c, "42[\"join\",\"realtime:room-%d\"]", topic);
  else if (c->old)
    say(c, "{\"topic\":\"realtime:room-%d\",\"event\":\"phx_join\",\"join_ref\":\"1\",\"ref\":\"1\",\"payload\":"
        "{\"config\":{\"presence\":{\"enabled\":false}},\"access_token\":\"%s\"}}", topic, token);
  else
    say(c, "[\"%d\",\"%d\",\"realtime:room-%d\",\"phx_join\",{\"config\":{\"presence\":{\"enabled\":false}},"
        "\"access_token\":\"%s\"}]", topic + 1, topic + 1, topic, token);
}

static void heartbeat(struct connection *c) {
  c->ref++;
  if (opt.dialect == SOCKETIO)
    say(c, "42%u[\"heartbeat\",{}]", c->ref);
  else
    say(c, "[null,\"%u\",\"phoenix\",\"heartbeat\",{}]", c->ref);
}

static size_t broadcast(char *out, int topic, uint64_t due) { // one masked frame
  static char text[MAX_TEXT];
  int at;
  if (opt.dialect == SOCKETIO)
    at = sprintf(text, "42[\"publish\",\"realtime:room-%d\",{", topic);
  else
    at = sprintf(text, "[\"%d\",null,\"realtime:room-%d\",\"broadcast\",{\"type\":\"broadcast\",\"event\":\"shout\","
                 "\"payload\":{", topic + 1, topic);
  int start = at - 1;
  at += sprintf(text + at, "\"ts\":\"%020llu\",\"user\":\"u1\",\"body\":\"", (unsigned long long)due);
  while (at - start < opt.payload - 2) text[at++] = 'x';
  at += sprintf(text + at, opt.dialect == SOCKETIO ? "\"}]" : "\"}}]");
  return frame(out, text, (size_t)at);
}

// Reading ----------------------------------------------------------------------------------------------------

static void begin(struct connection *c) { // the socket is open: what comes next
  if (c->role == PROBE || !strcmp(opt.mode, "heartbeats")) {
    c->state = READY;
    ready++;
    return;
  }
  c->missing = c->role == PUBLISHER ? opt.topics : 1;
  if (c->role == MEMBER) {
    join(c, c->number % opt.topics);
    return;
  }
  join(c, c->topic++); // the publisher joins its topics one after the other
}

static void joined(struct connection *c, const char *text, size_t length) {
  if (opt.dialect == PHOENIX && !memmem(text, length, "\"status\":\"ok\"", 13))
    die("a join was refused: %.*s", (int)length, text);
  if (--c->missing) {
    join(c, c->topic++);
    return;
  }
  c->state = READY;
  ready++;
}

static void greeted(struct connection *c, const char *text, size_t length) { // Socket.IO: 0{...}, then 40{...}
  if (text[0] == '0')
    say(c, "40");
  else if (length > 1 && text[0] == '4' && text[1] == '0')
    begin(c);
}

static void on_text(struct connection *c, const char *text, size_t length) {
  if (opt.dialect == SOCKETIO && length == 1 && text[0] == '2') {
    say(c, "3"); // its ping
    return;
  }
  switch (c->state) {
    case GREETING:
      greeted(c, text, length);
      return;
    case JOINING:
      joined(c, text, length);
      return;
    case READY:
      break;
    default:
      return;
  }
  if (c->role == PROBE) {
    c->waiting = false;
    if (measuring) observe(&beats, now() - c->due);
  } else if (!strcmp(opt.mode, "heartbeats")) {
    answers++;
    heartbeat(c);
  } else if (c->role == MEMBER) {
    deliveries++;
    if (delays.buckets && measuring) {
      const char *stamp = memmem(text, length, "\"ts\":\"", 6);
      if (stamp) observe(&delays, now() - strtoull(stamp + 6, NULL, 10));
    }
  }
}

static bool read_some(struct connection *c) { // false when the connection ended
  static char buffer[READ_SIZE + LEFT_SIZE];
  if (c->left) memcpy(buffer, c->leftover, c->left);
  ssize_t got = recv(c->fd, buffer + c->left, READ_SIZE, 0);
  if (got <= 0) return got < 0 && errno == EAGAIN;
  char *at = buffer, *end = buffer + c->left + got;
  c->left = 0;
  if (c->state == HANDSHAKE) {
    char *body = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
    if (!body) goto keep;
    if (strncmp(at, "HTTP/1.1 101", 12)) die("a handshake was refused: %.*s", (int)(end - at), at);
    at = body + 4;
    c->state = GREETING;
    if (opt.dialect == PHOENIX) begin(c);
  }
  while (end - at >= 2) {
    const uint8_t *head = (const uint8_t *)at;
    uint64_t length = head[1] & 127;
    ptrdiff_t header = 2;
    if (length == 126) {
      if (end - at < 4) break;
      length = (uint64_t)head[2] << 8 | head[3];
      header = 4;
    } else if (length == 127) {
      if (end - at < 10) break;
      length = 0;
      for (int i = 2; i < 10; i++) length = length << 8 | head[i];
      header = 10;
    }
    if ((uint64_t)(end - at) < (uint64_t)header + length) break;
    int opcode = head[0] & 15;
    if (opcode == 8) return false;
    if (opcode == 1 || opcode == 2) on_text(c, at + header, length);
    at += (uint64_t)header + length;
  }
keep:
  c->left = (size_t)(end - at);
  if (c->left > LEFT_SIZE) die("a frame is larger than this client reads");
  if (c->left) {
    if (!c->leftover && !(c->leftover = malloc(LEFT_SIZE))) die("out of memory");
    memcpy(c->leftover, at, c->left);
  } else if (c->leftover) {
    free(c->leftover);
    c->leftover = NULL;
  }
  return true;
}

static void turn(int milliseconds) {
  static struct epoll_event events[1024];
  int count = epoll_wait(epoll, events, 1024, milliseconds);
  for (int i = 0; i < count; i++) {
    struct connection *c = events[i].data.ptr;
    if (c->state == CLOSED || read_some(c)) continue;
    lost_connections++;
    close(c->fd);
    c->state = CLOSED;
  }
}

// Opening ----------------------------------------------------------------------------------------------------

static void open_connection(struct connection *c) {
  int yes = 1;
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (c->fd < 0) die("no socket: %s", strerror(errno));
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("cannot connect: %s", strerror(errno));
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
  char head[2048];
  int length = snprintf(head, sizeof head,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                        "User-Agent: load\r\n\r\n",
                        c->old ? opt.old_path : opt.path, opt.port);
  c->state = HANDSHAKE;
  write_all(c, head, (size_t)length);
}

static double open_all(void) { // connections opened and joined a second
  uint64_t start = now();
  for (int opened = 0; ready < total;) {
    while (opened < total && opened - ready < opt.in_flight) {
      struct connection *c = &connections[opened];
      c->number = opened++;
      c->role = c->number < opt.members ? MEMBER : c->number < opt.members + opt.probes ? PROBE : PUBLISHER;
      c->old = opt.mixed && c->role == MEMBER && c->number & 1;
      open_connection(c);
    }
    turn(50);
    if (lost_connections) die("the server closed a connection while others joined");
    if (now() - start > PATIENCE) die("%d of %d connections are joined", ready, total);
  }
  return total / ((double)(now() - start) / 1e9);
}

static void read_tokens(void) {
  FILE *file = fopen(opt.tokens, "r");
  char line[4096];
  if (!file) die("cannot read %s", opt.tokens);
  tokens = calloc((size_t)total, sizeof *tokens);
  for (int i = 0; i < total; i++) {
    if (!fgets(line, sizeof line, file)) die("there are fewer tokens than connections");
    line[strcspn(line, "\n")] = 0;
    tokens[i] = strdup(line);
  }
  fclose(file);
}

// Measuring --------------------------------------------------------------------------------------------------

struct window { // what is measured between two moments
  uint64_t start, deliveries, answers;
  double own, server;
};

static struct window begin_window(void) {
  measuring = true;
  return (struct window){now(), deliveries, answers, own_cpu(), server_cpu()};
}

static void end_window(const struct window *w, const char *what, uint64_t count) {
  double seconds = (double)(now() - w->start) / 1e9;
  measuring = false;
  printf(",\"%s\":%.0f,\"client_cpu\":%.3f,\"server_cpu\":%.3f", what, (double)count / seconds,
         (own_cpu() - w->own) / seconds, (server_cpu() - w->server) / seconds);
}

static void probe(uint64_t at) {
  for (int i = opt.members; i < opt.members + opt.probes; i++) {
    struct connection *c = &connections[i];
    if (!c->due) c->due = at + (uint64_t)(i - opt.members) * SECOND / PROBE_HZ / (uint64_t)opt.probes;
    if (c->waiting || at < c->due + SECOND / PROBE_HZ) continue;
    c->due += SECOND / PROBE_HZ; // also when it is late: that counts
    c->waiting = true;
    heartbeat(c);
  }
}

static void drain(uint64_t published) {
  uint64_t wanted = published * (uint64_t)(opt.members / opt.topics), start = now();
  while (deliveries < wanted && now() - start < DRAIN) turn(20);
  printf(",\"lost\":%lld", (long long)(wanted - deliveries));
}

static void fanout(void) {
  static char out[OUT_SIZE];
  uint64_t published = 0, fan = (uint64_t)(opt.members / opt.topics), start = now();
  double length = opt.warmup;
  struct window window;
  for (bool warm = false;;) {
    uint64_t at = now();
    if ((double)(at - start) / 1e9 > length) {
      if (warm) break;
      warm = true;
      start = at;
      length = opt.seconds;
      window = begin_window();
    }
    if (opt.probes) probe(at);
    int room = opt.window - (int)(published - deliveries / fan);
    if (room >= (opt.window + 1) / 2) {
      size_t size = 0;
      for (; room > 0 && size < OUT_SIZE - MAX_TEXT; room--)
        size += broadcast(out + size, (int)(published++ % (uint64_t)opt.topics), at);
      write_all(publisher, out, size);
    }
    turn(opt.probes ? 5 : 20);
  }
  end_window(&window, "deliveries", deliveries - window.deliveries);
  drain(published);
}

static void paced(void) {
  static char out[MAX_TEXT];
  uint64_t published = 0, start = now();
  double messages = opt.rate / (opt.members / opt.topics), warm = opt.warmup;
  struct window window = {0};
  while ((double)(now() - start) / 1e9 < opt.warmup + opt.seconds) {
    double passed = (double)(now() - start) / 1e9;
    if (!window.start && passed > warm) window = begin_window();
    for (; (double)published < passed * messages; published++) {
      uint64_t due = start + (uint64_t)((double)published / messages * 1e9);
      write_all(publisher, out, broadcast(out, (int)(published % (uint64_t)opt.topics), due));
    }
    double wait = ((double)published / messages - (double)(now() - start) / 1e9) * 1000;
    turn(wait < 1.5 ? 0 : wait > 10 ? 10 : (int)wait);
  }
  end_window(&window, "deliveries", deliveries - window.deliveries);
  measuring = true;
  drain(published);
}

static void heartbeats(void) {
  for (int i = 0; i < opt.members; i++) heartbeat(&connections[i]);
  uint64_t start = now();
  while ((double)(now() - start) / 1e9 < opt.warmup) turn(50);
  struct window window = begin_window();
  while ((double)(now() - window.start) / 1e9 < opt.seconds) turn(50);
  end_window(&window, "answers", answers - window.answers);
}

// Options ----------------------------------------------------------------------------------------------------

static void read_options(int count, char **words) {
  for (int i = 1; i + 1 < count; i += 2) {
    const char *name = words[i], *value = words[i + 1];
    if (!strcmp(name, "--dialect")) opt.dialect = !strcmp(value, "socketio") ? SOCKETIO : PHOENIX;
    else if (!strcmp(name, "--mode")) opt.mode = value;
    else if (!strcmp(name, "--path")) opt.path = value;
    else if (!strcmp(name, "--old-path")) opt.old_path = value;
    else if (!strcmp(name, "--tokens")) opt.tokens = value;
    else if (!strcmp(name, "--port")) opt.port = atoi(value);
    else if (!strcmp(name, "--members")) opt.members = atoi(value);
    else if (!strcmp(name, "--topics")) opt.topics = atoi(value);
    else if (!strcmp(name, "--window")) opt.window = atoi(value);
    else if (!strcmp(name, "--in-flight")) opt.in_flight = atoi(value);
    else if (!strcmp(name, "--payload")) opt.payload = atoi(value);
    else if (!strcmp(name, "--probes")) opt.probes = atoi(value);
    else if (!strcmp(name, "--pid")) opt.pid = atoi(value);
    else if (!strcmp(name, "--mixed")) opt.mixed = atoi(value);
    else if (!strcmp(name, "--seconds")) opt.seconds = atof(value);
    else if (!strcmp(name, "--warmup")) opt.warmup = atof(value);
    else if (!strcmp(name, "--rate")) opt.rate = atof(value);
    else die("what is %s?", name);
  }
}

int main(int count, char **words) {
  read_options(count, words);
  bool publishes = !strcmp(opt.mode, "fanout") || !strcmp(opt.mode, "paced");
  total = opt.members + opt.probes + publishes;
  connections = calloc((size_t)total, sizeof *connections);
  publisher = &connections[total - 1];
  epoll = epoll_create1(0);
  delays.buckets = strcmp(opt.mode, "paced") ? NULL : calloc(BUCKETS, sizeof *delays.buckets);
  beats.buckets = calloc(BUCKETS, sizeof *beats.buckets);
  if (opt.tokens) read_tokens();

  long before = server_kib();
  double cpu = server_cpu(), own = own_cpu();
  double joins = open_all();
  cpu = server_cpu() - cpu;
  usleep(300000); // what the server frees after the burst of joins
  printf("{\"connections\":%d,\"joins\":%.0f,\"joins_server_cpu\":%.3f,\"joins_client_cpu\":%.3f,\"kib\":%.3f", total,
         joins, cpu, own_cpu() - own, (double)(server_kib() - before) / total);
  if (!strcmp(opt.mode, "fanout")) fanout();
  else if (!strcmp(opt.mode, "paced")) paced();
  else if (!strcmp(opt.mode, "heartbeats")) heartbeats();
  else if (strcmp(opt.mode, "idle")) die("no such mode: %s", opt.mode);
  const struct histogram *told = opt.probes ? &beats : &delays;
  if (told->buckets && told->count)
    printf(",\"p50\":%.3f,\"p99\":%.3f,\"measured\":%llu", percentile(told, 0.5), percentile(told, 0.99),
           (unsigned long long)told->count);
  printf(",\"closed\":%d}\n", lost_connections);
  return 0;
}
