// The limit of bench/fanout.py: what one thread can do that sends one prebuilt frame for each delivery.
//
// It speaks as much of the protocol as the load client does, looks for the words it knows in place of parsing,
// has no tokens, no limits and no metrics, and drops what does not fit into a socket. `limit PORT`.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_SIZE = 256 << 10, LEFT_SIZE = 128 << 10, TOPICS = 20000 };

struct connection {
  int fd, open;
  size_t left;
  char *leftover;
};

struct topic {
  struct connection **members;
  int count, room;
};

static struct topic topics[TOPICS];
static int epoll;

// The handshake's digest (FIPS 180-4), so that nothing but a compiler is needed to build this -----------------

static uint32_t rotate(uint32_t x, int by) { return x << by | x >> (32 - by); }

static void sha1_block(uint32_t h[5], const uint8_t *block) {
  uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
  for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  for (int i = 0; i < 80; i++) {
    uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 || i >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
    static const uint32_t k[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
    uint32_t next = rotate(a, 5) + f + e + k[i / 20] + w[i];
    e = d, d = c, c = rotate(b, 30), b = a, a = next;
  }
  h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

static void accept_value(const char *key, char *out) { // 24 characters of a key make 28 of an answer
  uint8_t data[128] = {0}, digest[21] = {0};
  uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  memcpy(data, key, 24);
  memcpy(data + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
  data[60] = 0x80;
  data[126] = 60 * 8 >> 8;
  data[127] = (uint8_t)(60 * 8);
  sha1_block(h, data);
  sha1_block(h, data + 64);
  for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int i = 0; i < 7; i++) {
    uint32_t group = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 | digest[3 * i + 2];
    for (int j = 0; j < 4; j++) out[4 * i + j] = letters[group >> (18 - 6 * j) & 63];
  }
  out[27] = '=';
  out[28] = 0;
}

// Frames -----------------------------------------------------------------------------------------------------

static size_t frame(char *out, const char *text, size_t length) {
  size_t at = 0;
  out[at++] = (char)0x81;
  if (length < 126) {
    out[at++] = (char)length;
  } else {
    out[at++] = 126;
    out[at++] = (char)(length >> 8);
    out[at++] = (char)length;
  }
  memcpy(out + at, text, length);
  return at + length;
}

static void deliver(struct connection *c, const char *data, size_t length) {
  ssize_t sent = send(c->fd, data, length, MSG_NOSIGNAL);
  (void)sent;
}

static void on_text(struct connection *c, char *text, size_t length) {
  static char out[LEFT_SIZE + 16];
  char body[512];
  char *name = memmem(text, length, "room-", 5);
  int number = name ? atoi(name + 5) : 0;
  struct topic *topic = &topics[number < 0 || number >= TOPICS ? 0 : number];
  if (memmem(text, length, "\"broadcast\"", 11)) {
    size_t size = frame(out, text, length);
    for (int i = 0; i < topic->count; i++)
      if (topic->members[i] != c) deliver(topic->members[i], out, size);
    return;
  }
  char *comma = memchr(text, ',', length), ref[32] = "null";
  if (comma) {
    char *end = memchr(comma + 1, ',', length - (size_t)(comma + 1 - text));
    if (end && end - comma < 32) snprintf(ref, sizeof ref, "%.*s", (int)(end - comma - 1), comma + 1);
  }
  int size;
  if (name) {
    if (topic->count == topic->room) {
      topic->room = topic->room ? 2 * topic->room : 16;
      topic->members = realloc(topic->members, (size_t)topic->room * sizeof *topic->members);
    }
    topic->members[topic->count++] = c;
    size = snprintf(body, sizeof body, "[%s,%s,\"realtime:room-%d\",\"phx_reply\",{\"status\":\"ok\",\"response\":{}}]", ref, ref, number);
  } else {
    size = snprintf(body, sizeof body, "[null,%s,\"phoenix\",\"phx_reply\",{\"status\":\"ok\",\"response\":{}}]", ref);
  }
  deliver(c, out, frame(out, body, (size_t)size));
}

static int read_some(struct connection *c) {
  static char buffer[READ_SIZE + LEFT_SIZE + 1];
  if (c->left) memcpy(buffer, c->leftover, c->left);
  ssize_t got = recv(c->fd, buffer + c->left, READ_SIZE, 0);
  if (got <= 0) return got < 0 && errno == EAGAIN;
  char *at = buffer, *end = buffer + c->left + got;
  c->left = 0;
  if (!c->open) {
    char *body = memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
    char *key = memmem(at, (size_t)(end - at), "Sec-WebSocket-Key: ", 19);
    if (!body || !key) goto keep;
    char value[32], out[256];
    accept_value(key + 19, value);
    int size = snprintf(out, sizeof out,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n", value);
    deliver(c, out, (size_t)size);
    c->open = 1;
    at = body + 4;
  }
  while (end - at >= 6) {
    uint8_t *head = (uint8_t *)at;
    size_t length = head[1] & 127, header = 6;
    if (length == 126) {
      if (end - at < 8) break;
      length = (size_t)head[2] << 8 | head[3];
      header = 8;
    }
    if ((size_t)(end - at) < header + length) break;
    char *mask = at + header - 4, *text = at + header;
    for (size_t i = 0; i < length; i++) text[i] ^= mask[i & 3];
    if ((head[0] & 15) == 1) on_text(c, text, length);
    at += header + length;
  }
keep:
  if (at < end) {
    c->left = (size_t)(end - at);
    if (!c->leftover) c->leftover = malloc(LEFT_SIZE);
    memcpy(c->leftover, at, c->left);
  }
  return 1;
}

static void accept_all(int listener) {
  int fd, yes = 1;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct connection *c = calloc(1, sizeof *c);
    c->fd = fd;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  }
}

int main(int count, char **words) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(count > 1 ? atoi(words[1]) : 0))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
    perror("limit");
    return 1;
  }
  socklen_t size = sizeof address;
  getsockname(listener, (struct sockaddr *)&address, &size);
  printf("%d\n", ntohs(address.sin_port));
  fflush(stdout);
  epoll = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  static struct epoll_event events[1024];
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    int ready = epoll_wait(epoll, events, 1024, -1);
    for (int i = 0; i < ready; i++) {
      struct connection *c = events[i].data.ptr;
      if (!c)
        accept_all(listener);
      else if (!read_some(c))
        close(c->fd); // it stays a member: a bench ends when its client does
    }
  }
}
