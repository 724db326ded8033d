// What a file probably is, by its name; the user may say otherwise.

export type ImportKind = 'appliance' | 'image' | 'iso' | 'disk';

export const KINDS: { value: ImportKind; label: string; hint: string }[] = [
  {
    value: 'appliance',
    label: 'Appliance',
    hint: 'A whole machine: an OVA',
  },
  { value: 'image', label: 'Image', hint: 'To make machines from' },
  { value: 'iso', label: 'ISO', hint: 'A disc for drives' },
  { value: 'disk', label: 'Disk', hint: 'For one machine' },
];

export function guessKind(fileName: string): ImportKind {
  const name = fileName.toLowerCase();
  if (/\.(ova|ovf|vmx)$/.test(name)) return 'appliance';
  if (/\.iso$/.test(name)) return 'iso';
  return 'image';
}

/** A name the host accepts, made of the file's. */
export function guessName(fileName: string): string {
  return fileName
    .replace(/(\.(ova|ovf|vmx|iso|qcow2?|vmdk|vhdx?|vdi|raw|img|gz|xz|zst|bz2|tar))+$/i, '')
    .replace(/[^A-Za-z0-9_.-]+/g, '-')
    .replace(/^[-.]+|[-.]+$/g, '')
    .slice(0, 63);
}
