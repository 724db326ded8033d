import { useState } from 'preact/hooks';
import { Pencil, Plus, Trash2, UserRound } from '../../ui/icons';
import { patch, post } from '../../api/client';
import type { Role, User } from '../../api/types';
import { ago, capitalize } from '../../lib/format';
import { mergePatch } from '../../lib/patch';
import { removeAsked } from '../../state/actions';
import { groups, session, users } from '../../state/store';
import { Badge, Status, Tag } from '../../ui/bits';
import { Button } from '../../ui/Button';
import type { Column } from '../../ui/DataTable';
import { CheckField, SelectField, TextField } from '../../ui/Field';
import { Listing } from '../../ui/Listing';
import { FormDialog } from '../FormDialog';
import { splitTags } from '../machine/GeneralDialog';
import { useCollection, useListed } from '../use-loaded';

export const ROLES: { value: Role; label: string }[] = [
  { value: 'administrator', label: 'Administrator: everything' },
  { value: 'operator', label: 'Operator: machines and their parts' },
  { value: 'viewer', label: 'Viewer: sees, changes nothing' },
  { value: 'none', label: 'None: only what grants allow' },
];

export function RoleBadge({ role }: { role: Role }) {
  return <Badge tone={role === 'administrator' ? 'info' : undefined}>{capitalize(role)}</Badge>;
}

const COLUMNS: Column<User>[] = [
  {
    key: 'name',
    title: 'User',
    width: 'minmax(120px, 1.2fr)',
    cell: (u) => <b>{u.name}</b>,
    sort: (u) => u.name,
  },
  {
    key: 'full',
    title: 'Full name',
    width: 'minmax(120px, 1.4fr)',
    from: 'tablet',
    cell: (u) => u.full_name,
    sort: (u) => u.full_name,
  },
  {
    key: 'role',
    title: 'Role',
    width: '130px',
    cell: (u) => <RoleBadge role={u.role} />,
    sort: (u) => u.role,
  },
  {
    key: 'groups',
    title: 'Groups',
    width: 'minmax(110px, 1fr)',
    from: 'desktop',
    cell: (u) => u.groups.map((g) => <Tag key={g} name={g} />),
  },
  {
    key: 'enabled',
    title: 'State',
    width: '110px',
    from: 'tablet',
    cell: (u) => (
      <Status tone={u.enabled ? 'ok' : 'idle'} text={u.enabled ? 'Enabled' : 'Locked'} />
    ),
    sort: (u) => (u.enabled ? 0 : 1),
  },
  {
    key: 'last',
    title: 'Last login',
    width: '120px',
    from: 'tablet',
    cell: (u) => (u.last_login ? ago(u.last_login) : 'Never'),
    sort: (u) => u.last_login,
  },
];

function UserDialog({ user, onClose }: { user?: User; onClose(): void }) {
  const [name, setName] = useState(user?.name ?? '');
  const [fullName, setFullName] = useState(user?.full_name ?? '');
  const [role, setRole] = useState<Role>(user?.role ?? 'operator');
  const [inGroups, setInGroups] = useState((user?.groups ?? []).join(', '));
  const [enabled, setEnabled] = useState(user?.enabled ?? true);
  const [password, setPassword] = useState('');
  const body = { full_name: fullName, role, groups: splitTags(inGroups), enabled };
  const send = async (): Promise<void> => {
    const secret = password ? { password } : {};
    if (user) {
      const changed = mergePatch(
        { full_name: user.full_name, role: user.role, groups: user.groups, enabled: user.enabled },
        body,
      ) as object | undefined;
      if (changed || password)
        await patch(`/users/${encodeURIComponent(user.name)}`, { ...changed, ...secret });
    } else await post('/users', { name, ...body, ...secret });
    await users.load();
  };
  return (
    <FormDialog
      title={user ? `Edit ${user.name}` : 'New user'}
      action={user ? 'Save' : 'Create'}
      size="medium"
      ready={name.trim() !== '' && (!!user || password !== '')}
      fields={['/name', '/full_name', '/role', '/groups', '/password']}
      onClose={onClose}
      send={send}
    >
      {(at) => (
        <div class="form">
          {!user && (
            <TextField label="User" value={name} onInput={setName} error={at('/name')} autoFocus />
          )}
          <TextField
            label="Full name"
            value={fullName}
            onInput={setFullName}
            error={at('/full_name')}
          />
          <SelectField
            label="Role"
            value={role}
            onInput={(r) => setRole(r as Role)}
            options={ROLES}
            error={at('/role')}
          />
          <TextField
            label="Groups"
            hint="Separated by commas"
            value={inGroups}
            onInput={setInGroups}
            error={at('/groups')}
            list={groups.items.value.map((g) => g.name)}
          />
          <TextField
            label={user ? 'New password' : 'Password'}
            hint={user ? 'Empty: it stays.' : undefined}
            type="password"
            autoComplete="new-password"
            value={password}
            onInput={setPassword}
            error={at('/password')}
          />
          <div class="wide">
            <CheckField label="May log in" checked={enabled} onInput={setEnabled} />
          </div>
        </div>
      )}
    </FormDialog>
  );
}

const drop = (user: User): Promise<boolean> =>
  removeAsked({
    title: `Delete the user ${user.name}?`,
    body: ['Sessions end at once; tokens and grants of this user are removed.'],
    action: 'Delete user',
    path: `/users/${encodeURIComponent(user.name)}`,
    failed: `${user.name} was not deleted`,
    then: () => users.load(),
  });

export function Users() {
  const list = useListed(users);
  useCollection(groups);
  const [editing, setEditing] = useState<{ user?: User } | null>(null);
  return (
    <>
      <Listing
        label="Users"
        title="Users"
        list={list}
        nothing={{ icon: UserRound, title: 'No users' }}
        headActions={
          <Button small icon={Plus} onClick={() => setEditing({})}>
            New user
          </Button>
        }
        columns={COLUMNS}
        keyOf={(u) => u.name}
        textOf={(u) => `${u.name} ${u.full_name} ${u.role} ${u.groups.join(' ')}`}
        rowActions={(u) => [
          { icon: Pencil, label: `Edit ${u.name}`, run: () => setEditing({ user: u }) },
          {
            icon: Trash2,
            label: `Delete ${u.name}`,
            disabled: u.name === session.value?.user,
            why: 'That is you',
            run: () => void drop(u),
          },
        ]}
      />
      {editing && <UserDialog user={editing.user} onClose={() => setEditing(null)} />}
    </>
  );
}
