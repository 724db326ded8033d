/*
 * The two protocols in which a tree is served, one request and its answer at a time: 9P2000.L and
 * FUSE. Requests come from a guest: every length, number and name in them is checked. Internal to
 * the share server; knows no transport.
 */
#ifndef MULL_SHARE_SERVER_H
#define MULL_SHARE_SERVER_H

#include <stddef.h>
#include <stdint.h>

#include "share/tree.h"

/** Open files and fids a guest may have at once. */
#define SHARE_HANDLES 4096u
/** The longest transfer of one request. */
#define SHARE_IO_MAX (1u << 20)

struct share_p9;
struct share_fuse;

/** @tree outlives the server. @return NULL: no memory */
struct share_p9 *share_p9_create(struct share_tree *tree);
void share_p9_destroy(struct share_p9 *server);

/**
 * Answer one request.
 *
 * @param request, len  all of it
 * @param answer, room  where the answer goes; an answer that has no room becomes an error
 * @return the answer's length; 0: none (too little room even for an error)
 */
size_t share_p9_handle(struct share_p9 *server, const void *request, size_t len, void *answer,
                       size_t room);

/** The same for FUSE; 0 also for requests that have no answer (FORGET). */
struct share_fuse *share_fuse_create(struct share_tree *tree);
void share_fuse_destroy(struct share_fuse *server);
size_t share_fuse_handle(struct share_fuse *server, const void *request, size_t len, void *answer,
                         size_t room);

#endif
