// A client whose types are generated from openapi.json: what the document says of a path, the
// compiler holds this to; what the server answers, the checks below hold it to.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { env: Record<string, string | undefined> };
type Task = components["schemas"]["Task"];

const base = process.env["MULLION_URL"]!;
const token = process.env["MULLION_TOKEN"]!;
const api = createClient<paths>({
  baseUrl: base + "api/v1",
  headers: { Authorization: `Bearer ${token}` },
});

function expect(good: unknown, what: string): asserts good {
  if (!good) throw new Error(what);
}

async function finished(task: Task): Promise<Task> {
  for (let i = 0; i < 600; i++) {
    const { data } = await api.GET("/tasks/{id}", { params: { path: { id: task.id } } });
    expect(data, "a task");
    if (data.state !== "queued" && data.state !== "running") return data;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("the task goes on");
}

const about = await api.GET("/");
expect(about.data?.api === "v1", "about");

const made = await api.POST("/machines", {
  body: { name: "generated", memory: 64 << 20, disks: [{ capacity: 1 << 20 }], networks: [] },
});
expect(made.data, JSON.stringify(made.error));
const task = await finished(made.data);
expect(task.state === "succeeded", JSON.stringify(task.error));

const list = await api.GET("/machines", { params: { query: { q: "generated", limit: 10 } } });
const machine = list.data?.items[0];
expect(machine && machine.state === "stopped", "the machine");
const path = { id: machine.id };

const started = await api.POST("/machines/{id}/start", { params: { path } });
expect(started.data && (await finished(started.data)).state === "succeeded", "start");
const wrong = await api.PATCH("/machines/{id}", { params: { path }, body: { cpus: 1000 } });
expect(wrong.response.status === 422 && wrong.error?.field === "/cpus", "a problem");
const stopped = await api.POST("/machines/{id}/stop", { params: { path }, body: { force: true } });
expect(stopped.data && (await finished(stopped.data)).state === "succeeded", "stop");
const gone = await api.DELETE("/machines/{id}", {
  params: { path, query: { disks: "delete" } },
});
expect(gone.data && (await finished(gone.data)).state === "succeeded", "delete");
const missing = await api.GET("/machines/{id}", { params: { path } });
expect(missing.response.status === 404, "it is gone");
console.log("the generated client is served");
