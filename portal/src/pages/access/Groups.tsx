import { useState } from 'preact/hooks';
import { Pencil, Plus, Trash2, UsersRound } from '../../ui/icons';
import { patch, post, remove } from '../../api/client';
import type { Group } from '../../api/types';
import { ask, notifyProblem } from '../../state/notices';
import { groups, users } from '../../state/store';
import { Banner, Empty, Panel, Tag } from '../../ui/bits';
import { Button } from '../../ui/Button';
import { DataTable, type Column } from '../../ui/DataTable';
import { TextField } from '../../ui/Field';
import { FormDialog } from '../FormDialog';
import { splitTags } from '../machine/GeneralDialog';
import { useCollection } from '../use-loaded';

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

async function drop(group: Group): Promise<void> {
  const answer = await ask({
    title: `Delete the group ${group.name}?`,
    body: ['Its members stay; what was granted to the group is taken from them.'],
    action: 'Delete group',
    danger: true,
  });
  if (answer === null) return;
  try {
    await remove(`/groups/${encodeURIComponent(group.name)}`);
    await groups.load();
  } catch (error) {
    notifyProblem(`${group.name} was not deleted`, error);
  }
}

export function Groups() {
  const list = useCollection(groups);
  useCollection(users);
  const [editing, setEditing] = useState<{ group?: Group } | null>(null);
  return (
    <>
      {groups.problem.value && <Banner tone="bad">{groups.problem.value}</Banner>}
      <Panel
        title="Groups"
        flush
        actions={
          <Button small icon={Plus} onClick={() => setEditing({})}>
            New group
          </Button>
        }
      >
        {list.length || !groups.loaded.value ? (
          <DataTable
            label="Groups"
            columns={COLUMNS}
            items={list}
            keyOf={(g) => g.name}
            actionsWidth="72px"
            actions={(g) => (
              <>
                <Button
                  small
                  variant="ghost"
                  icon={Pencil}
                  label={`Edit ${g.name}`}
                  onClick={() => setEditing({ group: g })}
                />
                <Button
                  small
                  variant="ghost"
                  icon={Trash2}
                  label={`Delete ${g.name}`}
                  onClick={() => void drop(g)}
                />
              </>
            )}
          />
        ) : (
          <Empty icon={UsersRound} title="No groups" />
        )}
      </Panel>
      {editing && <GroupDialog group={editing.group} onClose={() => setEditing(null)} />}
    </>
  );
}
