// Templates: what machines are made like. A panel below the images, and the dialog that makes one.
import { useState } from 'preact/hooks';
import { post } from '../api/client';
import type { MachineSummary, Task, Template } from '../api/types';
import { surface } from '../app/ui-state';
import { ago, bytes, count, osName } from '../lib/format';
import { navigate } from '../lib/router';
import { removeAsked } from '../state/actions';
import { mayChange, putTask, templates } from '../state/store';
import { Badge } from '../ui/bits';
import type { Column } from '../ui/DataTable';
import { TextField } from '../ui/Field';
import { LayoutTemplate, Plus, Trash2 } from '../ui/icons';
import { Listing } from '../ui/Listing';
import type { MenuItem } from '../ui/Menu';
import { FormDialog } from './FormDialog';
import { useListed } from './use-loaded';

const COLUMNS: Column<Template>[] = [
  {
    key: 'name',
    title: 'Template',
    width: 'minmax(150px, 2fr)',
    cell: (t) => (
      <>
        <b>{t.name}</b> {t.state !== 'ready' && <Badge tone="info">{t.state}</Badge>}
      </>
    ),
    sort: (t) => t.name,
  },
  {
    key: 'os',
    title: 'System',
    width: 'minmax(110px, 1fr)',
    from: 'tablet',
    cell: (t) => (t.os ? osName(t.os) : '–'),
    sort: (t) => t.os,
  },
  {
    key: 'hardware',
    title: 'Hardware',
    width: '160px',
    from: 'desktop',
    cell: (t) => `${count(t.cpus, 'CPU')}, ${bytes(t.memory)}`,
    sort: (t) => t.memory,
  },
  {
    key: 'size',
    title: 'On disk',
    width: '100px',
    align: 'end',
    cell: (t) => bytes(t.size),
    sort: (t) => t.size,
  },
  {
    key: 'linked',
    title: 'Linked',
    width: '80px',
    align: 'end',
    from: 'tablet',
    cell: (t) => String(t.linked),
    sort: (t) => t.linked,
  },
  {
    key: 'created',
    title: 'Made',
    width: '120px',
    from: 'tablet',
    cell: (t) => ago(t.created),
    sort: (t) => t.created,
  },
];

const drop = (template: Template): Promise<boolean> =>
  removeAsked({
    title: `Delete ${template.name}?`,
    body: [`${bytes(template.size)} become free. Machines that are copies of it go on working.`],
    path: `/templates/${template.id}`,
    failed: `${template.name} was not deleted`,
  });

export function TemplatePanel() {
  const list = useListed(templates);
  if (!list.items.length && !list.problem) return null;
  const makeFrom = (template: Template): void => {
    navigate(`#/images?template=${template.id}`, true);
    surface.value = 'create';
  };
  return (
    <Listing
      label="Templates"
      list={list}
      nothing={{ icon: LayoutTemplate, title: 'No templates' }}
      columns={COLUMNS}
      keyOf={(t) => t.id}
      nameOf={(t) => t.name}
      textOf={(t) => `${t.name} ${t.os ? osName(t.os) : ''} ${t.description}`}
      rowActions={
        mayChange.value
          ? (t) => [
              {
                icon: Plus,
                label: `New machine like ${t.name}`,
                disabled: t.state !== 'ready',
                run: () => makeFrom(t),
              },
              {
                icon: Trash2,
                label: `Delete ${t.name}`,
                disabled: t.linked > 0,
                why: 'Machines are linked to it',
                run: () => void drop(t),
              },
            ]
          : undefined
      }
    />
  );
}

export function TemplateDialog({ machine, onClose }: { machine: MachineSummary; onClose(): void }) {
  const [name, setName] = useState(`${machine.name}-template`);
  const [description, setDescription] = useState(machine.description);
  return (
    <FormDialog
      title={`Make a template of ${machine.name}`}
      action="Make template"
      ready={name.trim() !== ''}
      fields={['/name']}
      onClose={onClose}
      send={async () =>
        putTask(
          await post<Task>('/templates', { name: name.trim(), machine: machine.id, description }),
        )
      }
    >
      {(at) => (
        <>
          <TextField
            label="Name"
            hint="The machine stays as it is: the template gets copies of its disks."
            value={name}
            onInput={setName}
            error={at('/name')}
            autoFocus
          />
          <TextField label="Description" value={description} onInput={setDescription} />
        </>
      )}
    </FormDialog>
  );
}

export function templateItem(machine: MachineSummary, open: () => void): MenuItem {
  const stopped = ['stopped', 'crashed'].includes(machine.state);
  return {
    label: stopped ? 'Make a template' : 'Make a template (stop it first)',
    icon: LayoutTemplate,
    apart: true,
    disabled: !stopped,
    run: open,
  };
}
