/* A server of a musl userland: answers each request at port 8080, and ends with 7 at SIGTERM, finished requests first. */
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t is_ending;
static void end(int number) { is_ending = number; }

int main(void) {
    const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nserved\n";
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(8080)};
    struct sigaction action = {.sa_handler = end};
    char request[4096];
    sigaction(SIGTERM, &action, 0);
    const int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&place, sizeof place) || listen(listener, 512)) return 1;
    while (!is_ending) {
        const int client = accept(listener, 0, 0);
        if (client < 0) continue;
        struct timeval limit = {.tv_sec = 2};
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        size_t got = 0;
        for (ssize_t more = 1; more > 0 && got < sizeof request - 1; got += more > 0 ? (size_t)more : 0) {
            more = read(client, request + got, sizeof request - 1 - got);
            request[got + (more > 0 ? (size_t)more : 0)] = 0;
            if (strstr(request, "\r\n\r\n")) break;
        }
        const int is_head = !strncmp(request, "HEAD", 4);
        if (write(client, answer, sizeof answer - 1 - (is_head ? 7 : 0)) < 0) is_ending = is_ending;
        shutdown(client, SHUT_WR);
        close(client);
    }
    return 7;
}
