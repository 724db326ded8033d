/*
 * A bounded cache of a file's bytes in pieces of one size, least recently used goes first; and who
 * is fetching what, so that no two threads fetch the same. For sources that are slow to ask.
 */
#ifndef MULL_IMAGE_PIECES_H
#define MULL_IMAGE_PIECES_H

#include <stdint.h>
#include <sys/uio.h>

struct mull_pieces;

/** A cache of @count pieces of @size bytes, which take memory as they come. NULL: out of memory. */
struct mull_pieces *mull_pieces_create(uint32_t size, uint32_t count);
/** NULL is allowed. */
void mull_pieces_destroy(struct mull_pieces *pieces);

/** Copy what is there from @offset on, up to the end of its piece, to [@skip...) of an iov. @return
 *  bytes copied, at most @length; 0: not there. Any thread. */
uint64_t mull_pieces_get(struct mull_pieces *pieces, uint64_t offset, const struct iovec *iov,
                         int niov, uint64_t skip, uint64_t length);

/** Put a piece in: @length bytes, fewer than a piece's only at the end of the file. @return 0 or
 *  -ENOMEM */
int mull_pieces_put(struct mull_pieces *pieces, uint64_t index, const void *data, uint32_t length);

/** Begin to fetch pieces from @index on, @most of them; waits while another thread fetches @index.
 *  @return how many are ours to fetch; 0: it is there now */
uint32_t mull_pieces_begin(struct mull_pieces *pieces, uint64_t index, uint32_t most);
/** End what begin() began. */
void mull_pieces_end(struct mull_pieces *pieces, uint64_t index, uint32_t count);

#endif
