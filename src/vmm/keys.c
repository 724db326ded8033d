/*
 * Layouts (keymap_table.inc, made from what X11 has), and the keys that are no characters with
 * their X11 symbols and the names people type.
 */
#include "vmm/keys.h"

#include <string.h>
#include <strings.h>

struct key_levels {
    uint8_t key; /* 0: the end */
    uint16_t character[4];
};

struct vmm_keymap {
    const char *name;
    const struct key_levels *keys;
};

#include "vmm/keymap_table.inc"

static const struct {
    uint32_t symbol;
    uint16_t key;
    const char *name;
} keys[] = {
    {0xff1b, 0x001, "esc"},        {0xff08, 0x00e, "backspace"},
    {0xff09, 0x00f, "tab"},        {0xfe20, 0x00f, NULL},
    {0xff0d, 0x01c, "ret"},        {0xffe3, 0x01d, "ctrl"},
    {0xffe1, 0x02a, "shift"},      {0xffe2, 0x036, "shift_r"},
    {0xffe9, 0x038, "alt"},        {0xffe7, 0x038, "meta"},
    {0x0020, 0x039, "spc"},        {0xffe5, 0x03a, "caps_lock"},
    {0xffbe, 0x03b, "f1"},         {0xffbf, 0x03c, "f2"},
    {0xffc0, 0x03d, "f3"},         {0xffc1, 0x03e, "f4"},
    {0xffc2, 0x03f, "f5"},         {0xffc3, 0x040, "f6"},
    {0xffc4, 0x041, "f7"},         {0xffc5, 0x042, "f8"},
    {0xffc6, 0x043, "f9"},         {0xffc7, 0x044, "f10"},
    {0xffc8, 0x057, "f11"},        {0xffc9, 0x058, "f12"},
    {0xff7f, 0x045, "num_lock"},   {0xff14, 0x046, "scroll_lock"},
    {0xffb7, 0x047, "kp_7"},       {0xffb8, 0x048, "kp_8"},
    {0xffb9, 0x049, "kp_9"},       {0xffad, 0x04a, "kp_subtract"},
    {0xffb4, 0x04b, "kp_4"},       {0xffb5, 0x04c, "kp_5"},
    {0xffb6, 0x04d, "kp_6"},       {0xffab, 0x04e, "kp_add"},
    {0xffb1, 0x04f, "kp_1"},       {0xffb2, 0x050, "kp_2"},
    {0xffb3, 0x051, "kp_3"},       {0xffb0, 0x052, "kp_0"},
    {0xffae, 0x053, "kp_decimal"}, {0xffaa, 0x037, "kp_multiply"},
    {0xffaf, 0x135, "kp_divide"},  {0xff8d, 0x11c, "kp_enter"},
    {0xffe4, 0x11d, "ctrl_r"},     {0xffea, 0x138, "alt_r"},
    {0xfe03, 0x138, "altgr"},      {0xff50, 0x147, "home"},
    {0xff52, 0x148, "up"},         {0xff55, 0x149, "pgup"},
    {0xff51, 0x14b, "left"},       {0xff53, 0x14d, "right"},
    {0xff57, 0x14f, "end"},        {0xff54, 0x150, "down"},
    {0xff56, 0x151, "pgdn"},       {0xff63, 0x152, "insert"},
    {0xffff, 0x153, "delete"},     {0xffff, 0x153, "del"},
    {0xffeb, 0x15b, "meta_l"},     {0xffec, 0x15c, "meta_r"},
    {0xff67, 0x15d, "menu"},       {0xff61, 0x137, "print"},
    {0xff13, 0x145, "pause"},      {0xff95, 0x047, NULL},
    {0xff97, 0x048, NULL},         {0xff9a, 0x049, NULL},
    {0xff96, 0x04b, NULL},         {0xff9d, 0x04c, NULL},
    {0xff98, 0x04d, NULL},         {0xff9c, 0x04f, NULL},
    {0xff99, 0x050, NULL},         {0xff9b, 0x051, NULL},
    {0xff9e, 0x052, NULL},         {0xff9f, 0x053, NULL},
    {'-', 0x00c, "minus"},         {'=', 0x00d, "equal"},
    {',', 0x033, "comma"},         {'.', 0x034, "dot"},
    {'/', 0x035, "slash"},         {'\\', 0x02b, "backslash"},
    {';', 0x027, "semicolon"},     {'\'', 0x028, "apostrophe"},
    {'`', 0x029, "grave_accent"},  {'[', 0x01a, "bracket_left"},
    {']', 0x01b, "bracket_right"}, {0xff0d, 0x01c, "enter"},
    {'<', 0x056, "less"},
};

const struct vmm_keymap *vmm_keymap_find(const char *name)
{
    for (unsigned i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
        if (!strcmp(layouts[i].name, name ? name : "us"))
            return &layouts[i];
    return NULL;
}

const char *vmm_keymap_name(unsigned index)
{
    return index < sizeof(layouts) / sizeof(layouts[0]) ? layouts[index].name : NULL;
}

/* The character of a symbol (X11/keysymdef.h); dead keys stand for themselves. 0: none */
static uint16_t character_of(uint32_t symbol)
{
    unsigned low = 0, high = sizeof(legacy) / sizeof(legacy[0]);

    if ((symbol >= 0x20 && symbol < 0x7f) || (symbol >= 0xa0 && symbol <= 0xff) ||
        (symbol >= 0xfe50 && symbol <= 0xfe93))
        return (uint16_t)symbol;
    if (symbol >> 24 == 1)
        return symbol < 0x1010000 ? (uint16_t)symbol : 0;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (legacy[middle].symbol == symbol)
            return legacy[middle].character;
        if (legacy[middle].symbol < symbol)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* The lowest level that has it is the one people press. */
static unsigned find_character(const struct vmm_keymap *map, uint16_t character, unsigned *level)
{
    for (*level = 0; *level < 4; ++*level)
        for (const struct key_levels *k = map->keys; k->key; k++)
            if (k->character[*level] == character)
                return k->key;
    *level = 0;
    return 0;
}

unsigned vmm_key_of_symbol(const struct vmm_keymap *map, uint32_t symbol, unsigned *level)
{
    uint16_t character = character_of(symbol);
    unsigned key = 0;

    *level = 0;
    if (character && character != ' ') {
        key = find_character(map, character, level);
        /* A layout of other letters: the guest has Latin ones on a second one. */
        if (!key)
            key = find_character(vmm_keymap_find("us"), character, level);
        return key;
    }
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (keys[i].symbol == symbol)
            return keys[i].key;
    return 0;
}

unsigned vmm_key_of_character(const struct vmm_keymap *map, uint32_t character, unsigned *level)
{
    *level = 0;
    if (character == '\n' || character == '\r')
        return VMM_KEY_ENTER;
    if (character == '\t')
        return VMM_KEY_TAB;
    if (character == ' ')
        return VMM_KEY_SPACE;
    return character > ' ' && character < 0x10000 && (character < 0xfe50 || character > 0xfe93)
               ? find_character(map, (uint16_t)character, level)
               : 0;
}

unsigned vmm_key_of_name(const char *name, size_t len)
{
    unsigned level;

    if (len == 1)
        return vmm_key_of_symbol(vmm_keymap_find(NULL), (uint8_t)*name, &level);
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (keys[i].name && strlen(keys[i].name) == len && !strncasecmp(keys[i].name, name, len))
            return keys[i].key;
    return 0;
}
