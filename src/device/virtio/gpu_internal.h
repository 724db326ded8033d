/*
 * The inside of the virtio GPU, shared by gpu.c (commands, resources, the screen) and gpu_edid.c.
 */
#ifndef MULL_DEVICE_VIRTIO_GPU_INTERNAL_H
#define MULL_DEVICE_VIRTIO_GPU_INTERNAL_H

#include <stdint.h>

#define GPU_EDID_SIZE 128u

/** What a monitor of @width by @height pixels tells of itself (VESA E-EDID 1.4), 60 times a second.
 */
void gpu_edid(uint8_t edid[GPU_EDID_SIZE], unsigned width, unsigned height);

#endif
