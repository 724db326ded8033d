/*
 * See sums.h.
 */
#include "host/sums.h"

#include <stdio.h>
#include <string.h>

static const char *const endings[] = {"qcow2", "raw", "img", "vmdk", "vhdx", "vhd", "vdi"};

/* One line of sha256sum(1): 64 digits, a blank, a blank or '*', a name. @return the name's length,
 * 0: none that can be ours */
static size_t read_line(const char *line, size_t length, char sha256[65], const char **file)
{
    if (length < 67 || line[64] != ' ' || (line[65] != ' ' && line[65] != '*') ||
        strspn(line, "0123456789abcdefABCDEF") != 64)
        return 0;
    memcpy(sha256, line, 64);
    sha256[64] = '\0';
    *file = line + 66;
    length -= 66;
    if (length && (*file)[length - 1] == '\r')
        length--;
    return length < 128 ? length : 0;
}

bool sums_find(const char *sums, const char *name, char file[128], char sha256[65])
{
    char wanted[128];

    for (unsigned e = 0; e < sizeof(endings) / sizeof(endings[0]); e++) {
        if (snprintf(wanted, sizeof(wanted), "%s.%s", name, endings[e]) >= (int)sizeof(wanted))
            return false;
        for (const char *line = sums; line; line = strchr(line, '\n')) {
            const char *found;

            line += *line == '\n';
            size_t n = read_line(line, strcspn(line, "\n"), sha256, &found);
            if (n && n == strlen(wanted) && !memcmp(found, wanted, n)) {
                memcpy(file, wanted, n + 1);
                return true;
            }
        }
    }
    return false;
}
