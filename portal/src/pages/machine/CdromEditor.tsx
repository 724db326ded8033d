import { Plus, Trash2 } from '../../ui/icons';
import type { CdromConfig } from '../../api/types';
import { datastores, images } from '../../state/store';
import { Panel } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { SelectField } from '../../ui/Field';
import { useCollection } from '../use-loaded';

interface CdromEditorProps {
  drives: CdromConfig[];
  onChange(drives: CdromConfig[]): void;
  error: string | null;
}

export function CdromEditor({ drives, onChange, error }: CdromEditorProps) {
  const stores = useCollection(datastores);
  const isos = useCollection(images).filter((i) => i.kind === 'iso');
  const pathOf = (name: string): string => {
    const iso = isos.find((i) => i.name === name);
    const store = stores.find((d) => d.id === iso?.datastore);
    return `${store?.path ?? ''}/isos/${name}.iso`;
  };
  return (
    <Panel
      title="CD drives"
      actions={
        <Button
          small
          icon={Plus}
          disabled={drives.length >= 8}
          onClick={() => onChange([...drives, {}])}
        >
          Add
        </Button>
      }
    >
      <div class="entries">
        {!drives.length && <p class="muted">None.</p>}
        {error && <p class="bad-text">{error}</p>}
        {drives.map((drive, i) => {
          const options = [
            { value: '', label: 'Empty' },
            ...isos.map((iso) => ({ value: pathOf(iso.name), label: iso.name })),
          ];
          if (drive.path && !options.some((o) => o.value === drive.path))
            options.push({ value: drive.path, label: drive.path.split('/').pop()! });
          return (
            <div class="entry two" key={i}>
              <SelectField
                label={`Disc in drive ${i + 1}`}
                value={drive.path ?? ''}
                onInput={(path) =>
                  onChange(
                    drives.map((d, at) => (at === i ? { ...d, path: path || undefined } : d)),
                  )
                }
                options={options}
              />
              <Button
                icon={Trash2}
                variant="ghost"
                label={`Remove drive ${i + 1}`}
                onClick={() => onChange(drives.filter((_, at) => at !== i))}
              />
            </div>
          );
        })}
      </div>
    </Panel>
  );
}
