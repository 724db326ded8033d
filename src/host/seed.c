/* See seed.h. JSON is YAML (YAML 1.2, section 1.3), so that nothing has to be quoted by hand. */
#include "host/seed.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "image/iso.h"

#define LIST_MAX 256

static int wrong(struct mull_error *err, const char *member, const char *what)
{
    return mull_fail(err, EINVAL, "cloud_init.%s: %s", member, what);
}

/* ---- Checks ---- */

/* A POSIX user name, as useradd(8) takes it. */
static bool user_is_good(const char *name)
{
    size_t n = strlen(name);

    return n && n <= 32 && (islower((unsigned char)name[0]) || name[0] == '_') &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == n;
}

/* RFC 1123, section 2.1, with dots for a domain. */
static bool hostname_is_good(const char *name)
{
    size_t n = strlen(name), label = 0;

    for (size_t i = 0; i < n; i++) {
        if (name[i] == '.' ? !label || name[i - 1] == '-'
                           : !isalnum((unsigned char)name[i]) && (name[i] != '-' || !label))
            return false;
        label = name[i] == '.' ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return n && n <= 253 && name[n - 1] != '-' && name[n - 1] != '.';
}

/* A Debian package's name (Policy, 5.6.1) or another system's: nothing that a shell or an option
 * parser would look at twice. */
static bool package_is_good(const char *name)
{
    size_t n = strlen(name);

    return n && n <= 128 && isalnum((unsigned char)name[0]) &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.:_=~") ==
               n;
}

/* "TYPE BASE64 COMMENT", one line. */
static bool key_is_good(const char *key)
{
    size_t n = strlen(key);
    const char *space = strchr(key, ' ');

    for (const char *p = key; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127)
            return false;
    return n <= 16384 && space && space != key && strlen(space) > 16;
}

static int check_list(const json_t *setup, const char *member, bool (*good)(const char *),
                      const char *what, struct mull_error *err)
{
    const json_t *list = json_object_get(setup, member), *item;
    size_t i;

    if (!list)
        return 0;
    if (!json_is_array(list) || json_array_size(list) > LIST_MAX)
        return wrong(err, member, "must be a list of at most 256 strings");
    json_array_foreach((json_t *)list, i,
                       item) if (!json_is_string(item) ||
                                 !good(json_string_value(item))) return wrong(err, member, what);
    return 0;
}

static int check_text(const json_t *setup, const char *member, bool (*good)(const char *),
                      const char *what, struct mull_error *err)
{
    const json_t *value = json_object_get(setup, member);

    if (value && (!json_is_string(value) || !good(json_string_value(value))))
        return wrong(err, member, what);
    return 0;
}

static bool password_is_good(const char *password)
{
    return *password && strlen(password) <= 256 && !strpbrk(password, "\r\n");
}

static bool user_data_is_good(const char *text)
{
    return *text && strlen(text) <= HOST_SEED_USER_DATA;
}

static int check_members(const json_t *setup, struct mull_error *err)
{
    static const char *const known[] = {"user",     "password", "ssh_keys",
                                        "hostname", "packages", "user_data"};
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)setup, name, value)
    {
        bool found = false;

        for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
            found = found || !strcmp(name, known[i]);
        if (!found)
            return wrong(err, name, "there is no such member");
    }
    return 0;
}

int host_seed_check(const json_t *setup, struct mull_error *err)
{
    int ret = json_is_object(setup) ? check_members(setup, err)
                                    : mull_fail(err, EINVAL, "cloud_init: must be an object");

    if (!ret)
        ret = check_text(setup, "user", user_is_good,
                         "must be a name like web-admin: small letters, digits, '-', '_'", err);
    if (!ret)
        ret = check_text(setup, "password", password_is_good, "must be a line of 1 to 256 bytes",
                         err);
    if (!ret)
        ret = check_text(setup, "hostname", hostname_is_good,
                         "must be a name like web-1.example.org", err);
    if (!ret)
        ret = check_text(setup, "user_data", user_data_is_good, "must be 1 byte to 256 KiB", err);
    if (!ret)
        ret = check_list(setup, "ssh_keys", key_is_good,
                         "must be public keys as in authorized_keys, a line each", err);
    if (!ret)
        ret = check_list(setup, "packages", package_is_good, "must be names of packages", err);
    if (!ret && json_object_get(setup, "password") && !json_object_get(setup, "user"))
        ret = wrong(err, "password", "whose? give user, too");
    if (!ret && json_object_get(setup, "user_data") &&
        (json_object_get(setup, "user") || json_object_get(setup, "packages") ||
         json_object_get(setup, "ssh_keys")))
        ret = wrong(err, "user_data", "stands for itself: say users, keys and packages in it");
    return ret;
}

/* ---- What is written ---- */

static json_t *user_entry(const json_t *setup, const char *hash)
{
    json_t *user = json_pack("{s:O, s:s, s:s, s:[s], s:b}", "name", json_object_get(setup, "user"),
                             "shell", "/bin/bash", "sudo", "ALL=(ALL) NOPASSWD:ALL", "groups",
                             "sudo", "lock_passwd", hash == NULL);
    json_t *keys = json_object_get(setup, "ssh_keys");

    if (hash)
        json_object_set_new(user, "hashed_passwd", json_string(hash));
    if (keys)
        json_object_set(user, "ssh_authorized_keys", keys);
    return user;
}

/* @return malloc'ed */
static char *cloud_config(const json_t *setup, const char *hash)
{
    json_t *config = json_object(), *keys = json_object_get(setup, "ssh_keys");
    json_t *packages = json_object_get(setup, "packages");
    char *out = NULL;

    if (json_object_get(setup, "user"))
        json_object_set_new(config, "users", json_pack("[o]", user_entry(setup, hash)));
    else if (keys) /* the image's own first user */
        json_object_set(config, "ssh_authorized_keys", keys);
    if (hash)
        json_object_set_new(config, "ssh_pwauth", json_true());
    if (json_array_size(packages)) {
        json_object_set_new(config, "package_update", json_true());
        json_object_set(config, "packages", packages);
    }
    char *text = json_dumps(config, JSON_INDENT(1) | JSON_SORT_KEYS);
    if (text && asprintf(&out, "#cloud-config\n%s\n", text) < 0)
        out = NULL;
    free(text);
    json_decref(config);
    return out;
}

static char *meta_data(const char *instance, const char *hostname)
{
    json_t *meta = json_pack("{s:s, s:s}", "instance-id", instance, "local-hostname", hostname);
    char *text = json_dumps(meta, JSON_INDENT(1) | JSON_SORT_KEYS);

    json_decref(meta);
    return text;
}

int host_seed_write(const char *path, const char *instance, const char *hostname,
                    const json_t *setup, const char *hash, struct mull_error *err)
{
    const char *own = json_string_value(json_object_get(setup, "hostname"));
    const char *given = json_string_value(json_object_get(setup, "user_data"));
    int ret = host_seed_check(setup, err);

    if (ret)
        return ret;
    char *user = given ? strdup(given) : cloud_config(setup, hash);
    char *meta = meta_data(instance, own ? own : hostname);
    if (user && meta) {
        struct mull_iso_file files[] = {{"user-data", user, strlen(user)},
                                        {"meta-data", meta, strlen(meta)}};

        ret = mull_iso_write(path, "cidata", files, 2, err);
    } else {
        ret = mull_fail(err, ENOMEM, "no memory for the seed");
    }
    free(user);
    free(meta);
    return ret;
}
