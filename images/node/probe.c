/* Asks whether an application answers.
 *
 *     probe ADDRESS PORT SECONDS [PATH]
 *
 * Without PATH it has to accept a connection, with PATH to answer GET with a status of 200 to 399. Exit code: 0 if it
 * does, 1 if not, with the reason as a line, 100 for wrong arguments. */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REST_BYTES (1 << 20)

static struct timespec end;
static char rest[16384];
static const char *limit;

static int refuse(const char *reason) {
    printf("%s\n", reason);
    exit(1);
}

static int is_ready(int fd, short events) {
    struct timespec now;
    struct pollfd waiting = {.fd = fd, .events = events};
    clock_gettime(CLOCK_MONOTONIC, &now);
    const long left_ms = (end.tv_sec - now.tv_sec) * 1000 + (end.tv_nsec - now.tv_nsec) / 1000000;
    return left_ms > 0 && poll(&waiting, 1, (int)left_ms) > 0;
}

static void wait_for(int fd, short events) {
    if (is_ready(fd, events)) return;
    printf("no answer within %s s\n", limit);
    exit(1);
}

int main(int argc, char **argv) {
    struct addrinfo *place, hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    if (argc < 4 || argc > 5 || atoi(argv[3]) < 1 || getaddrinfo(argv[1], argv[2], &hints, &place)) return 100;
    limit = argv[3];
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += atoi(limit);
    const int fd = socket(place->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return refuse(strerror(errno));
    int fault = 0;
    if (connect(fd, place->ai_addr, place->ai_addrlen)) {
        if (errno != EINPROGRESS) refuse(strerror(errno));
        wait_for(fd, POLLOUT);
        socklen_t size = sizeof fault;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &fault, &size);
    }
    if (fault) refuse(strerror(fault));
    if (argc == 4) return 0;
    char request[2048], answer[13] = "";
    const char *const form = "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: serf-haproxy\r\nConnection: close\r\n\r\n";
    const int count = snprintf(request, sizeof request, form, argv[4]);
    if (count >= (int)sizeof request) return 100;
    if (send(fd, request, (size_t)count, MSG_NOSIGNAL) != count) refuse("it takes no request");
    for (size_t got = 0; got < sizeof answer - 1;) {
        wait_for(fd, POLLIN);
        const ssize_t more = read(fd, answer + got, sizeof answer - 1 - got);
        if (more < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (more < 0) refuse(strerror(errno));
        if (!more) refuse("its answer is not HTTP");
        got += (size_t)more;
    }
    if (strncmp(answer, "HTTP/1.", 7) || answer[8] != ' ') refuse("its answer is not HTTP");
    /* The rest is read too: applications complain of a client that goes early. */
    for (size_t left = REST_BYTES; left && is_ready(fd, POLLIN);) {
        const ssize_t more = read(fd, rest, left < sizeof rest ? left : sizeof rest);
        if (more < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (more <= 0) break;
        left -= (size_t)more;
    }
    if (answer[9] == '2' || answer[9] == '3') return 0;
    printf("HTTP status %.3s\n", answer + 9);
    return 1;
}
