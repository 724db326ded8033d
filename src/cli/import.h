/* What `mullion import` and `mullion export` share: progress bars, and what was not carried over.
 */
#ifndef MULL_CLI_IMPORT_H
#define MULL_CLI_IMPORT_H

#include <jansson.h>
#include <stdio.h>

#include "cli/image.h"
#include "machine/appliance/package.h"

/** The next option, -1 after the last; '?' where it is wrong, which has been said. */
int package_getopt(const char *command, int argc, char **argv, const struct option *options);

/** A bar for each file in turn, on a terminal. Starts as zeroes. */
struct package_bar {
    struct image_bar bar;
    char what[256];
    bool begun;
};

int package_bar_step(void *opaque, const char *what, uint64_t done, uint64_t total);
void package_bar_end(struct package_bar *bar);

/** The report, by kind; nothing where there is none. */
void report_print(const struct mull_report *report, FILE *out);
/** The value of @option, "table" or "json". @return -1, or the status after saying what is wrong */
int report_parse_output(const char *option, const char *value, bool *json);
json_t *report_json(const struct mull_report *report);

#endif
