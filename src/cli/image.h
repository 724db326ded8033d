/* What the files of `mullion image` share. */
#ifndef MULL_CLI_IMAGE_H
#define MULL_CLI_IMAGE_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#include "image/convert.h"
#include "image/image.h"
#include "image/source.h"

/** `mullion image ...`. @return the exit status. */
int mull_cli_image(int argc, char **argv);

/** A format with its options: "qcow2,compress=zstd,cluster_size=64k". Keeps pointers into @text,
 *  which it changes. */
struct image_target {
    const struct mull_format *format;
    struct mull_create_options create;
    bool compress;
};

/** Print "mullion image: ..." and return @status. */
int image_fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** "10G", "512M", "4096". @return false: not a size. */
bool image_parse_size(const char *text, uint64_t *out);

/** Parse a --to argument. Says itself what is wrong. */
bool image_parse_target(char *text, struct image_target *out);

/** --format table|json. Says itself what is wrong. */
bool image_parse_output(const char *text, bool *json);

/** A progress bar on standard error if that is a terminal; stops on SIGINT. */
struct image_bar {
    const char *what;
    bool shown;
    int permille;
};
void image_bar_begin(struct image_bar *bar, const char *what);
int image_bar_step(void *opaque, uint64_t done, uint64_t total);
void image_bar_end(struct image_bar *bar);

/** The log for images: warnings to standard error. */
extern const struct mull_log image_log;

/** What --ca-file, --max-size and --key-file said, for whatever is opened. */
const struct mull_source_options *image_source(void);

int image_create(int argc, char **argv);
int image_convert(int argc, char **argv);
int image_copy(int argc, char **argv);
int image_partitions(int argc, char **argv);
int image_ls(int argc, char **argv);
int image_cat(int argc, char **argv);
int image_resize(int argc, char **argv);
int image_commit(int argc, char **argv);
int image_rebase(int argc, char **argv);
int image_snapshot(int argc, char **argv);
int image_bitmap(int argc, char **argv);
int image_changes(int argc, char **argv);
int image_info(int argc, char **argv);
int image_check(int argc, char **argv);
int image_compare(int argc, char **argv);
int image_map(int argc, char **argv);
int image_measure(int argc, char **argv);
int image_serve(int argc, char **argv);

#endif
