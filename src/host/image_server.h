/*
 * The image server of the configuration: a folder of a web server with disk images and a file
 * SHA256SUMS as sha256sum(1) writes it. What is not in that file is not fetched, and what does not
 * match it is not kept.
 */
#ifndef MULL_HOST_IMAGE_SERVER_H
#define MULL_HOST_IMAGE_SERVER_H

#include "host/host.h"
#include "host/tasks.h"

/**
 * Fetch an image. Without the host's lock.
 *
 * @param folder  a folder of the task's own
 * @return the file's path, malloc'ed; NULL: @p says why, or, where the server has no such image,
 * *known is false and @p untouched
 */
char *image_server_fetch(struct task *task, const char *name, const char *folder, bool *known,
                         struct host_problem *p);

#endif
