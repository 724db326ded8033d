import { Disc, Disc3, HardDrive, LayoutTemplate, type LucideIcon } from '../../ui/icons';
import { bytes, osName } from '../../lib/format';
import { has, images, templates } from '../../state/store';
import { openImport } from '../../app/ui-state';
import { Button } from '../../ui/Button';
import { useCollection } from '../use-loaded';
import type { StepProps } from './CreateWizard';
import type { Source } from './draft';

const SOURCES: { value: Source; icon: LucideIcon; label: string; hint: string }[] = [
  { value: 'image', icon: Disc3, label: 'Image', hint: 'A system ready to run' },
  { value: 'iso', icon: Disc, label: 'ISO', hint: 'Install from a disc' },
  { value: 'template', icon: LayoutTemplate, label: 'Template', hint: 'As another machine' },
  { value: 'blank', icon: HardDrive, label: 'Empty disk', hint: 'Nothing on it yet' },
];

export function SourceStep({ draft, set, at }: StepProps) {
  const imageList = useCollection(images).filter((i) => i.state === 'ready');
  const templateList = useCollection(templates).filter((t) => t.state === 'ready');
  const offered = SOURCES.filter(
    (s) => s.value !== 'template' || (has('templates') && templateList.length),
  );
  const entries =
    draft.source === 'template'
      ? templateList.map((t) => ({
          id: t.id,
          name: t.name,
          note: t.description || `${t.cpus} CPUs, ${bytes(t.memory)}`,
          os: t.os ?? '',
          least: 0,
          hardware: { cpus: t.cpus, memory: t.memory },
        }))
      : imageList
          .filter((i) => i.kind === draft.source)
          .map((i) => ({
            id: i.name,
            name: i.name,
            note: [i.os && osName(i.os), bytes(i.kind === 'iso' ? i.size : i.capacity)]
              .filter(Boolean)
              .join(', '),
            os: i.os ?? '',
            least: i.kind === 'image' ? i.capacity : 0,
            hardware: {},
          }));
  const error = at(`/${draft.source}`);
  return (
    <>
      <div class="choices" role="radiogroup" aria-label="Source">
        {offered.map(({ value, icon: Icon, label, hint }) => (
          <button
            key={value}
            type="button"
            role="radio"
            class="choice"
            aria-checked={draft.source === value}
            onClick={() => set({ source: value, from: '', least: 0 })}
          >
            <Icon size={20} aria-hidden="true" />
            <b>{label}</b>
            <span>{hint}</span>
          </button>
        ))}
      </div>
      {error && <p class="bad-text">{error}</p>}
      {draft.source !== 'blank' && (
        <div class="choices" role="radiogroup" aria-label="Which">
          {entries.map((entry) => (
            <button
              key={entry.id}
              type="button"
              role="radio"
              class="choice"
              aria-checked={draft.from === entry.id}
              onClick={() =>
                set({
                  from: entry.id,
                  os: entry.os,
                  least: entry.least,
                  disk: entry.least || draft.disk,
                  ...entry.hardware,
                })
              }
            >
              <b>{entry.name}</b>
              <span>{entry.note}</span>
            </button>
          ))}
        </div>
      )}
      {draft.source !== 'blank' && !entries.length && (
        <p class="muted">
          There is none yet.{' '}
          {draft.source !== 'template' && (
            <Button small onClick={() => openImport()}>
              Upload one
            </Button>
          )}
        </p>
      )}
    </>
  );
}
