/* See curl.h. */
#include "base/curl.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

int mull_curl_load(struct mull_curl *api, struct mull_error *err)
{
    static const char *const names[] = {"libcurl-gnutls.so.4", "libcurl.so.4"};
    static const struct {
        const char *name;
        size_t offset;
    } functions[] = {
        {"curl_easy_init", offsetof(struct mull_curl, init)},
        {"curl_easy_setopt", offsetof(struct mull_curl, setopt)},
        {"curl_easy_perform", offsetof(struct mull_curl, perform)},
        {"curl_easy_getinfo", offsetof(struct mull_curl, getinfo)},
        {"curl_easy_cleanup", offsetof(struct mull_curl, cleanup)},
        {"curl_easy_strerror", offsetof(struct mull_curl, text)},
        {"curl_easy_send", offsetof(struct mull_curl, send)},
        {"curl_easy_recv", offsetof(struct mull_curl, receive)},
        {"curl_easy_escape", offsetof(struct mull_curl, escape)},
        {"curl_free", offsetof(struct mull_curl, free)},
        {"curl_slist_append", offsetof(struct mull_curl, append)},
        {"curl_slist_free_all", offsetof(struct mull_curl, free_list)},
    };
    bool whole = true;

    memset(api, 0, sizeof(*api));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !api->library; i++)
        api->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!api->library)
        return mull_fail(err, ENOSYS,
                         "http and https need libcurl: install libcurl3-gnutls (or libcurl4)");
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        /* dlsym() returns functions as data pointers: POSIX says that they convert. */
        void *function = dlsym(api->library, functions[i].name);

        whole = whole && function;
        memcpy((char *)api + functions[i].offset, &function, sizeof(function));
    }
    if (whole)
        return 0;
    mull_curl_unload(api);
    return mull_fail(err, ENOSYS, "the libcurl of this host is not one that we can use");
}

void mull_curl_unload(struct mull_curl *api)
{
    if (api->library)
        dlclose(api->library);
    memset(api, 0, sizeof(*api));
}
