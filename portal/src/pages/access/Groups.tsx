import { useState } from 'preact/hooks';
import { Pencil, Plus, Trash2, UsersRound } from '../../ui/icons';
import { patch, post } from '../../api/client';
import type { Group } from '../../api/types';
import { removeAsked } from '../../state/actions';
import { groups, users } from '../../state/store';
import { Tag } from '../../ui/bits';
import { Button } from '../../ui/Button';
import type { Column } from '../../ui/DataTable';
import { TextField } from '../../ui/Field';
import { Listing } from '../../ui/Listing';
import { FormDialog } from '../FormDialog';
import { splitTags } from '../machine/GeneralDialog';
import { useCollection, useListed } from '../use-loaded';

const COLUMNS: Column<Group>[] = [
  {
    key: 'name',
    title: 'Group',
    width: 'minmax(120px, 1fr)',
    cell: (g) => <b>{g.name}</b>,
    sort: (g) => g.name,
  },
  {
    key: 'description',
    title: 'Description',
    width: 'minmax(120px, 2fr)',
    from: 'tablet',
    cell: (g) => g.description,
  },
  {
    key: 'members',
    title: 'Members',
    width: 'minmax(120px, 2fr)',
    cell: (g) => g.members.map((m) => <Tag key={m} name={m} />),
  },
];

function GroupDialog({ group, onClose }: { group?: Group; onClose(): void }) {
  const [name, setName] = useState(group?.name ?? '');
  const [description, setDescription] = useState(group?.description ?? '');
  const [members, setMembers] = useState((group?.members ?? []).join(', '));
  return (
    <FormDialog
      title={group ? `Edit ${group.name}` : 'New group'}
      action={group ? 'Save' : 'Create'}
      ready={name.trim() !== ''}
      fields={['/name', '/description', '/members']}
      onClose={onClose}
      send={async () => {
        const body = { description, members: splitTags(members) };
        if (group) await patch(`/groups/${encodeURIComponent(group.name)}`, body);
        else await post('/groups', { name, ...body });
        await groups.load();
      }}
    >
      {(at) => (
        <>
          {!group && (
            <TextField label="Group" value={name} onInput={setName} error={at('/name')} autoFocus />
          )}
          <TextField
            label="Description"
            value={description}
            onInput={setDescription}
            error={at('/description')}
          />
          <TextField
            label="Members"
            hint="Users, separated by commas"
            value={members}
            onInput={setMembers}
            error={at('/members')}
            list={users.items.value.map((u) => u.name)}
          />
        </>
      )}
    </FormDialog>
  );
}

const drop = (group: Group): Promise<boolean> =>
  removeAsked({
    title: `Delete the group ${group.name}?`,
    body: ['Its members stay; what was granted to the group is taken from them.'],
    action: 'Delete group',
    path: `/groups/${encodeURIComponent(group.name)}`,
    failed: `${group.name} was not deleted`,
    then: () => groups.load(),
  });

export function Groups() {
  const list = useListed(groups);
  useCollection(users);
  const [editing, setEditing] = useState<{ group?: Group } | null>(null);
  return (
    <>
      <Listing
        label="Groups"
        title="Groups"
        list={list}
        nothing={{ icon: UsersRound, title: 'No groups' }}
        headActions={
          <Button small icon={Plus} onClick={() => setEditing({})}>
            New group
          </Button>
        }
        columns={COLUMNS}
        keyOf={(g) => g.name}
        textOf={(g) => `${g.name} ${g.description} ${g.members.join(' ')}`}
        rowActions={(g) => [
          { icon: Pencil, label: `Edit ${g.name}`, run: () => setEditing({ group: g }) },
          { icon: Trash2, label: `Delete ${g.name}`, run: () => void drop(g) },
        ]}
      />
      {editing && <GroupDialog group={editing.group} onClose={() => setEditing(null)} />}
    </>
  );
}
