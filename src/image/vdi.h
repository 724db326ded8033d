/* What the files of the VDI format share. Private to src/image/vdi*.c. */
#ifndef MULL_IMAGE_VDI_H
#define MULL_IMAGE_VDI_H

#include "image/formats.h"

#define VDI_MAGIC 0xbeda107fu

/* Fields of the header. */
enum {
    VDI_AT_UUID = 392,        /* the image's own */
    VDI_AT_UUID_MODIFY = 408, /* another one whenever it is changed */
    VDI_AT_UUID_PARENT = 424,
    VDI_AT_PARENT_MODIFY = 440, /* the parent's, when this image was made */
};

void mull_vdi_uuid_text(const uint8_t *uuid, char out[37]);

/** The image with this UUID beside @path or one folder up, named as @path would name it. @return
 *  malloc'ed, or NULL: not there */
char *mull_vdi_find_parent(const char *path, const uint8_t *uuid);

#endif
