/*
 * libcurl, loaded when somebody needs it: most processes never speak HTTP. Knows nothing of what is
 * fetched.
 */
#ifndef MULL_BASE_CURL_H
#define MULL_BASE_CURL_H

#include <curl/curl.h>

#include "base/error.h"

/** What we use of libcurl, by curl_easy_* and curl_slist_* names. All zeroes: not loaded. */
struct mull_curl {
    void *library;
    CURL *(*init)(void);
    CURLcode (*setopt)(CURL *handle, CURLoption option, ...);
    CURLcode (*perform)(CURL *handle);
    CURLcode (*getinfo)(CURL *handle, CURLINFO info, ...);
    void (*cleanup)(CURL *handle);
    const char *(*text)(CURLcode code); /* curl_easy_strerror */
    CURLcode (*send)(CURL *handle, const void *data, size_t length, size_t *sent);
    CURLcode (*receive)(CURL *handle, void *data, size_t room, size_t *got);
    char *(*escape)(CURL *handle, const char *text, int length);
    void (*free)(void *text);
    struct curl_slist *(*append)(struct curl_slist *list, const char *text);
    void (*free_list)(struct curl_slist *list);
};

/** @param api  filled in; mull_curl_unload() when the last handle has gone */
int mull_curl_load(struct mull_curl *api, struct mull_error *err);

/** Nothing where it was not loaded. */
void mull_curl_unload(struct mull_curl *api);

#endif
