/* The formats there are. Each is one struct mull_format in a file of its own. */
#ifndef MULL_IMAGE_FORMATS_H
#define MULL_IMAGE_FORMATS_H

#include "image/image.h"

extern const struct mull_format mull_format_raw;
extern const struct mull_format mull_format_iso; /* raw.c */
extern const struct mull_format mull_format_qcow2;
extern const struct mull_format mull_format_vmdk;
extern const struct mull_format mull_format_vhdx;
extern const struct mull_format mull_format_vhd;
extern const struct mull_format mull_format_vdi;
extern const struct mull_format mull_format_parallels;
extern const struct mull_format mull_format_foreign; /* those that are refused by their name */

/** Whether raw content is a disc: read-only then. */
bool mull_raw_is_iso(struct mull_file *file);

#endif
