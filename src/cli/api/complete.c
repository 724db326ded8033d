/*
 * `mullion completion`: scripts for shells, all of which ask `mullion complete-words`, so that what
 * is completed is what the commands' descriptions say.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/api/groups.h"
#include "cli/cli.h"

static const char bash_script[] =
    "_mullion() {\n"
    "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" IFS=$'\\n'\n"
    "    COMPREPLY=($(mullion complete-words -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null))\n"
    "    [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$cur\"))\n"
    "}\n"
    "complete -o filenames -F _mullion mullion\n";

static const char zsh_script[] =
    "#compdef mullion\n"
    "_mullion() {\n"
    "    local -a found\n"
    "    found=(${(f)\"$(mullion complete-words -- ${words[2,CURRENT]} 2>/dev/null)\"})\n"
    "    if (( $#found )); then compadd -a found; else _files; fi\n"
    "}\n"
    "compdef _mullion mullion\n";

static const char fish_script[] = "function __mullion_words\n"
                                  "    set -l words (commandline -opc) (commandline -ct)\n"
                                  "    mullion complete-words -- $words[2..-1] 2>/dev/null\n"
                                  "end\n"
                                  "complete -c mullion -a '(__mullion_words)'\n";

static int completion(struct host_call *call)
{
    const char *shell = call->argument[0];

    if (strcmp(shell, "bash") && strcmp(shell, "zsh") && strcmp(shell, "fish"))
        return host_fail(API_USAGE, "completion %s: give bash, zsh or fish", shell);
    fputs(*shell == 'b' ? bash_script : *shell == 'z' ? zsh_script : fish_script, stdout);
    return API_DONE;
}

/* ---- complete-words ---- */

static void offer(const char *word, const char *begun)
{
    if (!strncmp(word, begun, strlen(begun)))
        puts(word);
}

/* Is it a command that asks no host? */
static bool is_own(const char *word)
{
    const char *name;

    for (unsigned i = 0; (name = cli_command_name(i)); i++)
        if (!strcmp(name, word))
            return true;
    return false;
}

/* The next word of each command that begins with the words there are. */
static void offer_commands(struct host_call *call, unsigned whole, const char *begun)
{
    char last[64] = "";
    const char *name;

    for (unsigned i = 0; !whole && (name = cli_command_name(i)); i++)
        offer(name, begun);
    for (unsigned g = 0; host_commands()[g]; g++)
        for (const struct host_command *c = host_commands()[g]; c->words; c++) {
            const char *rest = c->words;
            char next[64];
            unsigned i = 0;

            for (; i < whole && *rest; i++) {
                size_t n = strcspn(rest, " ");

                if (strlen(call->argument[i]) != n || strncmp(call->argument[i], rest, n))
                    break;
                rest += n + (rest[n] == ' ');
            }
            snprintf(next, sizeof(next), "%.*s", (int)strcspn(rest, " "), rest);
            if (i == whole && *next && strcmp(next, last) && (whole || !is_own(next)))
                offer(next, begun);
            snprintf(last, sizeof(last), "%s", next);
        }
}

/* Names of what the host has, where one answers. */
static void offer_objects(struct host_call *call, enum host_kind kind, const char *begun)
{
    static const struct {
        const char *list, *member;
    } kinds[] = {
        [HOST_MACHINE] = {"/machines?fields=name&limit=1000", "name"},
        [HOST_IMAGE] = {"/images?limit=1000", "name"},
        [HOST_NETWORK] = {"/networks?limit=1000", "name"},
        [HOST_DATASTORE] = {"/datastores?limit=1000", "name"},
        [HOST_TEMPLATE] = {"/templates?limit=1000", "name"},
        [HOST_POOL] = {"/pools?limit=1000", "name"},
        [HOST_USER] = {"/users?limit=1000", "name"},
        [HOST_GROUP] = {"/groups?limit=1000", "name"},
        [HOST_TOKEN] = {"/tokens?limit=1000", "name"},
        [HOST_TASK] = {"/tasks?state=running", "id"},
        [HOST_COMMAND] = {NULL, NULL},
    };
    struct mull_error err;
    json_t *one;
    size_t i;

    if (!kinds[kind].list || host_connect(call) >= 0)
        return;
    json_t *items = api_list(call->api, kinds[kind].list, &err);
    json_array_foreach(items, i, one)
    {
        const char *name = json_string_value(json_object_get(one, kinds[kind].member));

        if (name)
            offer(name, begun);
    }
    json_decref(items);
}

static void offer_options(const struct host_option *options, const char *begun)
{
    for (; options && options->name; options++) {
        char word[64];

        snprintf(word, sizeof(word), "--%s", options->name);
        offer(word, begun);
    }
}

/* The values of "a|b|c". */
static void offer_values(const char *values, const char *begun)
{
    char word[64];

    for (; *values; values += strcspn(values, "|"), values += *values == '|') {
        snprintf(word, sizeof(word), "%.*s", (int)strcspn(values, "|"), values);
        offer(word, begun);
    }
}

static int words(struct host_call *call)
{
    const struct host_option *tables[4];
    const char *begun = call->arguments ? call->argument[call->arguments - 1] : "";
    unsigned whole = call->arguments ? call->arguments - 1 : 0;
    int taken = 0;
    const struct host_command *c = host_command_find((int)whole, call->argument, &taken);

    if (!c) {
        offer_commands(call, whole, begun);
        return API_DONE;
    }
    unsigned n = host_command_tables(c, tables);
    const char *before = whole > (unsigned)taken ? call->argument[whole - 1] : "";
    for (unsigned t = 0; !strncmp(before, "--", 2) && t < n; t++)
        for (const struct host_option *o = tables[t]; o->name; o++)
            if (!strcmp(before + 2, o->name) && o->value) {
                if (o->kind == HOST_TEXT && strchr(o->value, '|') && *o->value >= 'a')
                    offer_values(o->value, begun);
                offer_objects(call, o->kind, begun);
                return API_DONE;
            }
    if (*begun == '-')
        for (unsigned t = 0; t < n; t++)
            offer_options(tables[t], begun);
    else
        offer_objects(call, c->kind, begun);
    return API_DONE;
}

/* ---- Manual pages ---- */

static int manuals(struct host_call *call)
{
    for (unsigned g = 0; host_commands()[g]; g++)
        for (const struct host_command *c = host_commands()[g]; c->words; c++) {
            char path[4096];
            int n = snprintf(path, sizeof(path), "%s/mullion-%s%s.1", call->argument[0], c->words,
                             c->flags & HOST_BOTH ? "-host" : "");

            for (char *p = path + strlen(call->argument[0]); *p; p++)
                *p = *p == ' ' ? '-' : *p;
            FILE *out = n < (int)sizeof(path) ? fopen(path, "we") : NULL;
            if (!out)
                return host_fail(API_FAILED, "%s: cannot be written", path);
            host_command_manual(c, out);
            if (fclose(out))
                return host_fail(API_FAILED, "%s: cannot be written", path);
        }
    return API_DONE;
}

const struct host_command host_shell_commands[] = {
    {"completion", "bash|zsh|fish", "print a shell's completion script",
     "For bash: mullion completion bash > ~/.local/share/bash-completion/completions/mullion", NULL,
     1, 1, HOST_TEXT, HOST_OFFLINE, completion},
    {"complete-words", "WORD...", "print how a command line may go on, for completion scripts",
     NULL, NULL, 0, HOST_ARGUMENTS_MAX, HOST_TEXT, HOST_OFFLINE, words},
    {"write-manuals", "FOLDER", "write the manual pages of the commands that ask a host", NULL,
     NULL, 1, 1, HOST_FILE, HOST_OFFLINE, manuals},
    {0},
};
