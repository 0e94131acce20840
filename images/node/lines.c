/* Filters Serf's log: one line for each record, in printable ASCII, each with a prefix.
 *
 *     lines -p                              have each write to the standard output, a pipe, be one read
 *     lines PREFIX TOLD HINT [DROPPED...]   filter; records that contain a text DROPPED are left out, and one that
 *                                           contains TOLD is followed by the line HINT
 *
 * Serf writes names and tags as they came, so a line feed or an escape sequence in them would forge a line, or reach a
 * reader's terminal. Only a line feed at the end of a write ends a line; all other bytes become question marks. The same
 * as s6/serf/log/data/lines, for images without Perl. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_BYTES 65536
#define PREFIX_BYTES 64

static int mark_packets(void) {
    struct stat status;
    if (fstat(1, &status) || !S_ISFIFO(status.st_mode)) return 0;
    return fcntl(1, F_SETFL, fcntl(1, F_GETFL) | O_DIRECT) ? 111 : 0;
}

static void put(const char *text, size_t count) {
    for (ssize_t written; count; text += written, count -= (size_t)written) {
        written = write(1, text, count);
        if (written < 0 && errno == EINTR) written = 0;
        if (written < 0) _exit(111);
    }
}

static int has_any(const char *record, char **texts) {
    for (; *texts; texts++)
        if (strstr(record, *texts)) return 1;
    return 0;
}

int main(int argc, char **argv) {
    static char buffer[PREFIX_BYTES + RECORD_BYTES + 1];
    if (argc == 2 && !strcmp(argv[1], "-p")) return mark_packets();
    if (argc < 4 || strlen(argv[1]) > PREFIX_BYTES) return 100;
    const size_t prefix = strlen(argv[1]);
    memcpy(buffer, argv[1], prefix);
    for (int is_start = 1, is_dropped = 0, is_told = 0;;) {
        char *const record = buffer + prefix;
        const ssize_t got = read(0, record, RECORD_BYTES);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got ? 111 : 0;
        /* A longer write comes in pieces of whole pages. The end of such a piece ends no line. */
        size_t count = (size_t)got;
        const int is_end = count % 4096 && record[count - 1] == '\n';
        count -= (size_t)is_end;
        for (size_t at = 0; at < count; at++)
            if ((record[at] < ' ' || record[at] > '~') && record[at] != '\t') record[at] = '?';
        record[count] = 0;
        if (is_start) {
            is_dropped = (is_end && !count) || has_any(record, argv + 4);
            is_told = !!strstr(record, argv[2]);
        }
        if (is_end) record[count++] = '\n';
        if (is_start && !is_dropped) put(buffer, prefix + count);
        else if (!is_dropped) put(record, count);
        if (is_told && is_end) put(argv[3], strlen(argv[3])), put("\n", 1);
        is_start = is_end;
    }
}
