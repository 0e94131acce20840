/* Prints the addresses of a name, one a line, those of IPv4 first.
 *
 *     resolve NAME SECONDS
 *
 * musl looks into /etc/hosts, then asks the servers of /etc/resolv.conf, with its search domains. The families are asked
 * one after the other: a server that refuses one must not hide the other. Exit code: 0 if there is an address, 1 if not,
 * 100 for wrong arguments. After SECONDS it ends with what it has printed by then. */
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 64 /* a server may answer with any number */

static volatile sig_atomic_t count;

static void end(int signal) {
    (void)signal;
    _exit(!count);
}

int main(int argc, char **argv) {
    const int families[] = {AF_INET, AF_INET6};
    if (argc != 3 || atoi(argv[2]) < 1) return 100;
    signal(SIGALRM, end);
    alarm((unsigned)atoi(argv[2]));
    for (int i = 0; i < 2; i++) {
        char text[NI_MAXHOST];
        struct addrinfo *found, hints = {.ai_family = families[i], .ai_socktype = SOCK_STREAM};
        if (getaddrinfo(argv[1], NULL, &hints, &found)) continue;
        for (; found && count < MOST; found = found->ai_next)
            if (!getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST)) {
                puts(text);
                count++;
            }
        fflush(stdout);
    }
    return !count;
}
