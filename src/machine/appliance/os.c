/*
 * Names of guest operating systems: VMX files' guestOS (which the description uses), VMware's
 * virtual machine types in OVF, CIM_OperatingSystem.OsType of the DMTF, and libosinfo's URIs.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "machine/appliance/internal.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Those that the rules below get wrong. */
static const char *const irregular[][2] = {
    {"other", "otherGuest"},
    {"other-64", "otherGuest64"},
    {"otherlinux", "otherLinuxGuest"},
    {"otherlinux-64", "otherLinux64Guest"},
    {"other24xlinux-64", "other24xLinux64Guest"},
    {"other26xlinux-64", "other26xLinux64Guest"},
    {"other3xlinux-64", "other3xLinux64Guest"},
    {"other4xlinux-64", "other4xLinux64Guest"},
    {"other5xlinux-64", "other5xLinux64Guest"},
    {"other6xlinux-64", "other6xLinux64Guest"},
    {"windows7srv-64", "windows7Server64Guest"},
    {"windows8srv-64", "windows8Server64Guest"},
    {"windows9srv-64", "windows9Server64Guest"},
    {"winnetenterprise-64", "winNetEnterprise64Guest"},
    {"winnetstandard-64", "winNetStandard64Guest"},
    {"winxppro", "winXPProGuest"},
    {"winxppro-64", "winXPPro64Guest"},
    {"vmkernel65", "vmkernel65Guest"},
};

void appliance_os_from_vim(const char *vim, char *out)
{
    for (unsigned i = 0; i < COUNT(irregular); i++)
        if (!strcasecmp(vim, irregular[i][1])) {
            strcpy(out, irregular[i][0]);
            return;
        }
    /* debian12_64Guest, ubuntu64Guest, dosGuest */
    size_t n = strlen(vim);
    if (n > 5 && !strcasecmp(vim + n - 5, "Guest"))
        n -= 5;
    bool wide = n > 2 && !memcmp(vim + n - 2, "64", 2);
    if (wide)
        n -= 2;
    if (wide && n && vim[n - 1] == '_')
        n--;
    if (n > 56)
        n = 56;
    for (size_t i = 0; i < n; i++)
        out[i] = (char)tolower((unsigned char)vim[i]);
    strcpy(out + n, wide ? "-64" : "");
}

void appliance_os_to_vim(const char *os, char *out)
{
    for (unsigned i = 0; i < COUNT(irregular); i++)
        if (!strcasecmp(os, irregular[i][0])) {
            strcpy(out, irregular[i][1]);
            return;
        }
    size_t n = strlen(os);
    bool wide = n > 3 && !strcmp(os + n - 3, "-64");
    if (wide)
        n -= 3;
    if (n > 50)
        n = 50;
    /* windows2019srv_64Guest, debian12_64Guest, but ubuntu64Guest. */
    bool under =
        n && (isdigit((unsigned char)os[n - 1]) || (n > 3 && !memcmp(os + n - 3, "srv", 3)));
    snprintf(out, 64, "%.*s%s%sGuest", (int)n, os, wide && under ? "_" : "", wide ? "64" : "");
}

/* By the beginning of the name; 32 and 64 bits. */
static const struct {
    const char *prefix;
    unsigned narrow, wide;
} cim[] = {
    {"debian", 95, 96},        {"ubuntu", 93, 94},      {"rhel", 79, 80},
    {"centos", 106, 107},      {"sles", 84, 85},        {"oraclelinux", 108, 109},
    {"freebsd", 42, 78},       {"solaris", 29, 29},     {"winxp", 67, 71},
    {"winnet", 69, 70},        {"windows7srv", 76, 77}, {"windows7", 105, 105},
    {"windows8srv", 112, 112}, {"windows8", 113, 114},  {"dos", 14, 14},
    {"netware", 21, 21},       {"otherlinux", 36, 101}, {"other26xlinux", 99, 100},
    {"other", 1, 102},
};

unsigned appliance_os_to_cim(const char *os)
{
    size_t n = strlen(os);
    bool wide = n > 3 && !strcmp(os + n - 3, "-64");
    for (unsigned i = 0; i < COUNT(cim); i++)
        if (!strncasecmp(os, cim[i].prefix, strlen(cim[i].prefix)))
            return wide ? cim[i].wide : cim[i].narrow;
    if (strcasestr(os, "linux"))
        return wide ? 101 : 36;
    return 1; /* Other */
}

const char *appliance_os_from_cim(unsigned number)
{
    static const struct {
        unsigned cim;
        const char *os;
    } back[] = {
        {95, "debian10"},       {96, "debian10-64"},    {93, "ubuntu"},
        {94, "ubuntu-64"},      {79, "rhel7"},          {80, "rhel7-64"},
        {106, "centos"},        {107, "centos-64"},     {84, "sles12"},
        {85, "sles12-64"},      {108, "oraclelinux"},   {109, "oraclelinux-64"},
        {42, "freebsd"},        {78, "freebsd-64"},     {67, "winxppro"},
        {71, "winxppro-64"},    {69, "winnetstandard"}, {70, "winnetstandard-64"},
        {77, "windows7srv-64"}, {105, "windows7-64"},   {112, "windows8srv-64"},
        {113, "windows8"},      {114, "windows8-64"},   {36, "otherlinux"},
        {101, "otherlinux-64"}, {99, "other26xlinux"},  {100, "other26xlinux-64"},
        {1, "other"},           {102, "other-64"},
    };
    for (unsigned i = 0; i < COUNT(back); i++)
        if (back[i].cim == number)
            return back[i].os;
    return NULL;
}

/* The number in a URI stands where %u does. */
static const struct {
    const char *os, *uri;
} uris[] = {
    {"debian%u-64", "http://debian.org/debian/%u"},
    {"rhel%u-64", "http://redhat.com/rhel/%u"},
    {"rhel%u-64", "http://redhat.com/rhel/%u.0"},
    {"freebsd%u-64", "http://freebsd.org/freebsd/%u.0"},
    {"sles%u-64", "http://suse.com/sle/%u"},
    {"windows9-64", "http://microsoft.com/win/10"},
    {"windows11-64", "http://microsoft.com/win/11"},
    {"windows8-64", "http://microsoft.com/win/8"},
    {"windows7-64", "http://microsoft.com/win/7"},
    {"windows9srv-64", "http://microsoft.com/win/2k16"},
    {"windows2019srv-64", "http://microsoft.com/win/2k19"},
    {"windows2022srvnext-64", "http://microsoft.com/win/2k22"},
    {"ubuntu-64", "http://ubuntu.com/ubuntu/22.04"},
    {"fedora-64", "http://fedoraproject.org/fedora/38"},
};

/* Does @text match @pattern, and with which number? */
static bool match(const char *pattern, const char *text, unsigned *number)
{
    const char *slot = strstr(pattern, "%u");
    *number = 0;
    if (!slot)
        return !strcmp(pattern, text);
    size_t n = (size_t)(slot - pattern);
    if (strncmp(pattern, text, n) || !isdigit((unsigned char)text[n]))
        return false;
    char *end;
    unsigned long value = strtoul(text + n, &end, 10);
    *number = (unsigned)value;
    return value < 1000 && !strcmp(end, slot + 2);
}

static void fill(const char *pattern, unsigned number, char *out, size_t room)
{
    const char *slot = strstr(pattern, "%u");
    if (slot)
        snprintf(out, room, "%.*s%u%s", (int)(slot - pattern), pattern, number, slot + 2);
    else
        snprintf(out, room, "%s", pattern);
}

bool appliance_os_to_uri(const char *os, char *out)
{
    unsigned number;
    for (unsigned i = 0; i < COUNT(uris); i++)
        if (match(uris[i].os, os, &number)) {
            fill(uris[i].uri, number, out, 96);
            return true;
        }
    return false;
}

bool appliance_os_from_uri(const char *uri, char *out)
{
    unsigned number;
    for (unsigned i = 0; i < COUNT(uris); i++)
        if (match(uris[i].uri, uri, &number)) {
            fill(uris[i].os, number, out, 64);
            return true;
        }
    if (!strncmp(uri, "http://ubuntu.com/ubuntu/", 25))
        strcpy(out, "ubuntu-64");
    else if (!strncmp(uri, "http://fedoraproject.org/fedora/", 32))
        strcpy(out, "fedora-64");
    else
        return false;
    return true;
}
