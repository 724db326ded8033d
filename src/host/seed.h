/*
 * The seed that sets a new guest up: cloud-init's NoCloud data source, an ISO image with the label
 * "cidata" (cloud-init documentation, "NoCloud"). Knows what a user may ask for, not machines.
 */
#ifndef MULL_HOST_SEED_H
#define MULL_HOST_SEED_H

#include <jansson.h>

#include "base/error.h"

#define HOST_SEED_USER_DATA (256u << 10) /* bytes of user data, at most */

/**
 * Is this a set-up that a seed can hold?
 *
 * @param setup  {user, password, ssh_keys: [..], hostname, packages: [..], user_data}, all of them
 *               optional; user_data stands for itself: with hostname only
 * @return 0, or -EINVAL with @err naming the member
 */
int host_seed_check(const json_t *setup, struct mull_error *err);

/**
 * Write the image.
 *
 * @param instance  the machine's id: a guest sets itself up once for each
 * @param hostname  the guest's name where @setup has none
 * @param hash      of the user's password, as crypt(3) makes it, or NULL; the password itself is
 * never written
 */
int host_seed_write(const char *path, const char *instance, const char *hostname,
                    const json_t *setup, const char *hash, struct mull_error *err);

#endif
