/*
 * Passwords: yescrypt by libcrypt, or PAM for users who have none here; the first administrator's.
 */
#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef HAVE_PAM
#include <security/pam_appl.h>
#endif

#include "host/auth.h"
#include "host/store/store.h"

/* ---- yescrypt ---- */

char *auth_hash(const char *password, struct host_problem *p)
{
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    struct crypt_data *data = calloc(1, sizeof(*data));
    char *hash = NULL;
    if (data && crypt_gensalt_rn("$y$", 0, NULL, 0, setting, sizeof(setting))) {
        const char *made = crypt_rn(password, setting, data, sizeof(*data));
        hash = made && *made != '*' ? strdup(made) : NULL;
        explicit_bzero(data, sizeof(*data));
    }
    free(data);
    if (!hash)
        host_problem(p, HOST_INTERNAL, NULL, "the password cannot be hashed: %s", strerror(errno));
    return hash;
}

static bool same(const char *a, const char *b)
{
    size_t n = strlen(a);
    unsigned char differs = n != strlen(b);
    for (size_t i = 0; i < n && !differs; i++)
        differs |= (unsigned char)(a[i] ^ b[i]);
    return !differs;
}

static bool matches(const char *password, const char *hash)
{
    struct crypt_data *data = calloc(1, sizeof(*data));
    const char *made = data ? crypt_rn(password, hash, data, sizeof(*data)) : NULL;
    bool good = made && *made != '*' && same(made, hash);
    if (data)
        explicit_bzero(data, sizeof(*data));
    free(data);
    return good;
}

/* ---- PAM ---- */

#ifdef HAVE_PAM
static int converse(int count, const struct pam_message **messages, struct pam_response **out,
                    void *opaque)
{
    struct pam_response *answers = calloc((size_t)count, sizeof(*answers));
    if (!answers)
        return PAM_BUF_ERR;
    for (int i = 0; i < count; i++)
        if (messages[i]->msg_style == PAM_PROMPT_ECHO_OFF)
            answers[i].resp = strdup(opaque);
    *out = answers;
    return PAM_SUCCESS;
}

static bool pam_good(const char *service, const char *user, const char *password)
{
    pam_handle_t *handle = NULL;
    struct pam_conv conversation = {converse, (void *)password};
    if (pam_start(service, user, &conversation, &handle) != PAM_SUCCESS)
        return false;
    int code = pam_authenticate(handle, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
    if (code == PAM_SUCCESS)
        code = pam_acct_mgmt(handle, PAM_SILENT);
    pam_end(handle, code);
    return code == PAM_SUCCESS;
}
#else
static bool pam_good(const char *service, const char *user, const char *password)
{
    return false;
}
#endif

/* ---- Checking ---- */

/* Somebody unknown must take as long as somebody known: a hash that nothing matches. */
static const char nobody[] =
    "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7";

bool auth_check_password(struct host *host, const char *user, const char *password)
{
    host_lock(host);
    char *hash = store_value(host->store, "SELECT hash FROM passwords WHERE user = ?", user, NULL);
    bool known = store_get(host->store, KIND_USER, user) != NULL;
    char *service = host->options.pam_service ? strdup(host->options.pam_service) : NULL;
    host_unlock(host);
    bool good = matches(password, hash ? hash : nobody) && hash;
    if (!hash && known && service)
        good = pam_good(service, user, password);
    free(hash);
    free(service);
    return good;
}

int auth_set_hash(struct host *host, const char *user, const char *hash, struct mull_error *err)
{
    int ret = store_run(host->store, err,
                        "INSERT INTO passwords VALUES(?1, ?2) ON CONFLICT(user) DO UPDATE SET "
                        "hash = ?2",
                        user, hash, NULL);
    char *initial = host_path(host->places.data, "initial-password");
    if (!ret && initial && !strcmp(user, "admin"))
        unlink(initial);
    free(initial);
    return ret;
}

/* ---- The first administrator ---- */

int auth_open(struct host *host, struct mull_error *err)
{
    char password[33], text[40];
    struct host_problem p = {0};
    if (json_object_size(store_all(host->store, KIND_USER)))
        return 0;
    host_random_hex(password, 10);
    char *hash = auth_hash(password, &p);
    if (!hash)
        return mull_fail(err, EIO, "%s", p.detail);
    /* The file comes last but one: who reads it can log in. */
    char *path = host_path(host->places.data, "initial-password");
    int ret = path ? store_begin(host->store, err) : -ENOMEM;
    if (!ret) {
        ret = auth_set_hash(host, "admin", hash, err);
        if (!ret)
            ret =
                store_put(host->store, KIND_USER, "admin",
                          json_pack("{s:s, s:s, s:s, s:[], s:b, s:n, s:o}", "name", "admin",
                                    "full_name", "Administrator", "role", "administrator", "groups",
                                    "enabled", 1, "last_login", "created", host_now_json()),
                          err);
        snprintf(text, sizeof(text), "%s\n", password);
        if (!ret)
            ret = host_write_file(path, text, strlen(text), 0600, err);
        ret = store_end(host->store, ret, err);
    }
    explicit_bzero(password, sizeof(password));
    explicit_bzero(text, sizeof(text));
    free(hash);
    free(path);
    return ret;
}
