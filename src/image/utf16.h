/*
 * Names of parents as VHD and VHDX keep them: UTF-16 with backslashes, of either byte order, to and
 * from UTF-8 with slashes. Knows text, never formats.
 */
#ifndef MULL_IMAGE_UTF16_H
#define MULL_IMAGE_UTF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** To UTF-8: up to @length bytes or a NUL, cut to @room with its own NUL. Half a surrogate pair
 *  becomes '?'. */
void mull_utf16_read(const uint8_t *in, uint32_t length, bool big, char *out, size_t room);

/** From UTF-8, as much as fits into @room bytes, without a NUL; what is no UTF-8 goes byte by byte.
 *  @return the bytes written */
uint32_t mull_utf16_write(uint8_t *out, uint32_t room, const char *text, bool big);

#endif
