/* Taking URLs apart (RFC 3986, the generic syntax). See url.h. */
#include "image/url.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

size_t mull_url_scheme(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+-.");
    return n > 0 && text[0] >= 'a' && !strncmp(text + n, "://", 3) ? n : 0;
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* In place. A decoded NUL would end the string early: refused. */
static bool decode(char *s)
{
    char *to = s;
    for (; *s; s++) {
        if (*s != '%') {
            *to++ = *s;
            continue;
        }
        int high = hex(s[1]), low = high < 0 ? -1 : hex(s[2]);
        if (low < 0 || !(high | low))
            return false;
        *to++ = (char)(high << 4 | low);
        s += 2;
    }
    *to = 0;
    return true;
}

static bool parse_authority(char *text, struct mull_url *url)
{
    char *at = strrchr(text, '@'), *end, *colon;

    if (at) {
        *at = 0;
        url->user = text;
        text = at + 1;
    }
    if (*text == '[') {
        end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':'))
            return false;
        *end = 0;
        url->host = text + 1;
        colon = end[1] ? end + 1 : NULL;
    } else {
        colon = strchr(text, ':');
        url->host = text;
    }
    if (colon) {
        *colon = 0;
        char *digits = colon + 1;
        unsigned long port = strtoul(digits, &end, 10);
        if (*digits < '0' || *digits > '9' || *end || port < 1 || port > 65535)
            return false;
        url->port = (uint16_t)port;
    }
    return decode(url->host) && (!url->user || decode(url->user));
}

static bool parse_query(char *text, struct mull_url *url)
{
    char *save, *word;

    for (word = strtok_r(text, "&;", &save); word; word = strtok_r(NULL, "&;", &save)) {
        if (url->nparameters == MULL_URL_PARAMETERS)
            return false;
        char *value = strchr(word, '=');
        if (value)
            *value++ = 0;
        else
            value = word + strlen(word);
        if (!decode(word) || !decode(value))
            return false;
        url->parameters[url->nparameters].name = word;
        url->parameters[url->nparameters++].value = value;
    }
    return true;
}

int mull_url_parse(const char *text, struct mull_url *out, struct mull_error *err)
{
    size_t len = strnlen(text, MULL_URL_MAX + 1), scheme = mull_url_scheme(text);

    memset(out, 0, sizeof(*out));
    if (len > MULL_URL_MAX)
        return mull_fail(err, EINVAL, "URL %.60s...: longer than %d characters", text,
                         MULL_URL_MAX);
    if (!scheme || scheme >= sizeof(out->scheme))
        return mull_fail(err, EINVAL, "%s: not a URL", text);
    memcpy(out->scheme, text, scheme);
    /* One byte more: the path's '/' gives way to the authority's end. */
    out->room = malloc(len + 2);
    if (!out->room)
        return mull_fail(err, ENOMEM, "URL: out of memory");
    char *rest = out->room;
    memcpy(rest, text + scheme + 3, len - scheme - 3 + 1);
    char *fragment = strchr(rest, '#');
    if (fragment)
        *fragment = 0;
    char *query = strchr(rest, '?');
    if (query)
        *query++ = 0;
    out->path = strchr(rest, '/');
    if (out->path)
        *out->path++ = 0;
    else
        out->path = rest + strlen(rest);
    if (parse_authority(rest, out) && decode(out->path) && (!query || parse_query(query, out)))
        return 0;
    mull_url_free(out);
    return mull_fail(err, EINVAL, "%s: not a URL we can read (SCHEME://HOST:PORT/PATH?NAME=VALUE)",
                     text);
}

const char *mull_url_parameter(const struct mull_url *url, const char *name)
{
    for (int i = 0; i < url->nparameters; i++)
        if (!strcmp(url->parameters[i].name, name))
            return url->parameters[i].value;
    return NULL;
}

char *mull_url_beside(const char *base, const char *name)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/!$'()*,;:@";
    size_t scheme = mull_url_scheme(base), end = strcspn(base, "?#");
    size_t path = scheme + 3 + strcspn(base + (scheme ? scheme + 3 : 0), "/?#");

    if (!scheme || strncmp(base, "http", 4) || *name == '/' || path >= end || base[path] != '/')
        return NULL;
    while (end > path && base[end - 1] != '/')
        end--;
    char *out = malloc(end + 3 * strlen(name) + 1), *to = out;
    if (!out)
        return NULL;
    memcpy(to, base, end);
    to += end;
    for (; *name; name++) {
        if (strchr(plain, *name)) {
            *to++ = *name;
        } else {
            static const char digits[] = "0123456789ABCDEF";
            *to++ = '%';
            *to++ = digits[(unsigned char)*name >> 4];
            *to++ = digits[(unsigned char)*name & 15];
        }
    }
    *to = 0;
    return out;
}

void mull_url_free(struct mull_url *url)
{
    free(url->room);
    memset(url, 0, sizeof(*url));
}
