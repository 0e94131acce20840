/* Becomes the image's own command, in its own environment and directory.
 *
 *     launch DIRECTORY 3< /proc/PID/environ 4< /proc/PID/cmdline
 *
 * The files are those of the process that the engine started, an interpreter with the script /init: the command is all
 * words after these two. A shell would lose variables whose names are no names for it, such as SPRING.PROFILES.
 *
 * Exit code, as a shell has it: 127 if the command is not found, 126 if it cannot be executed. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OWN_WORDS 2

extern char **environ;

static void fail(const char *what, int code) {
    fprintf(stderr, "init: %s: %s\n", what, strerror(errno));
    exit(code);
}

/* Returns the texts of a file, each of which ends with a zero byte; after the last one is a null pointer. */
static char **read_texts(int fd) {
    size_t size = 0, room = 65536, count = 0;
    char *data = malloc(room);
    for (ssize_t got = 1; data && got; size += (size_t)got) {
        if (size == room && !(data = realloc(data, room *= 2))) break;
        got = read(fd, data + size, room - size);
        if (got < 0) fail("reading the command", 111);
    }
    for (size_t at = 0; data && at < size; at++) count += !data[at];
    char **texts = calloc(count + 1, sizeof *texts);
    if (!data || !texts) fail("reading the command", 111);
    for (size_t at = 0, number = 0; number < count; at += strlen(data + at) + 1) texts[number++] = data + at;
    close(fd);
    return texts;
}

int main(int argc, char **argv) {
    if (argc != 2) return 100;
    char **const variables = read_texts(3);
    char **command = read_texts(4);
    for (int number = 0; number < OWN_WORDS && *command; number++) command++;
    if (!*command) return 100;
    if (chdir(argv[1])) fail(argv[1], 126);
    environ = variables;
    execvp(*command, command);
    fail(*command, errno == ENOENT ? 127 : 126);
}
