"""Checks answers against openapi.json: the part of JSON Schema that the document uses."""
import re


class Document:
    def __init__(self, document):
        self.document = document
        self.seen = set()  # (path, method, status)

    def resolve(self, schema):
        while "$ref" in schema:
            node = self.document
            for part in schema["$ref"][2:].split("/"):
                node = node[part]
            schema = node
        return schema

    def operation(self, method, path):
        """The template and operation that a path is of."""
        path = path.split("?")[0]
        for template, item in self.document["paths"].items():
            pattern = re.sub(r"\{\w+\}", "[^/]+", template)
            if re.fullmatch(pattern, path) and method.lower() in item and \
                    ("{" not in template or path not in self.document["paths"]):
                return template, item[method.lower()]
        return None, None

    def check_answer(self, method, path, answer):
        """What was answered must be in the document, with this shape."""
        template, operation = self.operation(method, path)
        if operation is None:
            return
        status = str(answer.status)
        assert status in operation["responses"], f"{method} {template}: {status} is not described"
        self.seen.add((template, method.lower(), status))
        response = self.resolve(operation["responses"][status])
        content = response.get("content")
        if method == "HEAD" or not content:
            assert method == "HEAD" or not answer.body, f"{method} {template}: a body"
            return
        kind = answer.headers["Content-Type"].split(";")[0]
        assert kind in content, f"{method} {template} {status}: {kind}"
        if kind.endswith("json") and "fields=" not in path:
            self.check(content[kind]["schema"], answer.json, f"{method} {template} {status}")
        for name in response.get("headers", {}):
            assert name in answer.headers, f"{method} {template} {status}: no header {name}"

    def members(self, schema):
        """All that an object may have, or None: anything."""
        schema = self.resolve(schema)
        found = dict(schema.get("properties", {}))
        for part in schema.get("allOf", []):
            found.update(self.members(part) or {})
        return None if not found or schema.get("additionalProperties") is True else found

    def check(self, schema, value, at, part=False):
        schema = self.resolve(schema)
        if "oneOf" in schema:
            fits = [s for s in schema["oneOf"] if self.fits(s, value, at)]
            assert len(fits) == 1, f"{at}: fits {len(fits)} of oneOf: {value!r}"
        for one in schema.get("allOf", []):
            self.check(one, value, at, part=True)
        kinds = schema.get("type")
        if kinds:
            kinds = kinds if isinstance(kinds, list) else [kinds]
            assert any(self.is_type(value, k) for k in kinds), f"{at}: {value!r} is no {kinds}"
        if "enum" in schema:
            assert value in schema["enum"], f"{at}: {value!r}"
        if isinstance(value, dict):
            for name in schema.get("required", []):
                assert name in value, f"{at}: {name} is missing"
            members = self.members(schema)
            for name, item in value.items():
                if name in schema.get("properties", {}):
                    self.check(schema["properties"][name], item, f"{at}/{name}")
                assert part or members is None or name in members, f"{at}: {name} is not described"
        if isinstance(value, list) and "items" in schema:
            for i, item in enumerate(value):
                self.check(schema["items"], item, f"{at}/{i}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            assert value >= schema.get("minimum", value), f"{at}: {value}"
            assert value <= schema.get("maximum", value), f"{at}: {value}"
        if isinstance(value, str):
            if "pattern" in schema:
                assert re.search(schema["pattern"], value), f"{at}: {value!r}"
            if schema.get("format") == "date-time":
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", value), f"{at}: {value}"
            if schema.get("format") == "uuid":
                assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value), \
                    f"{at}: {value}"

    def fits(self, schema, value, at):
        try:
            self.check(schema, value, at)
            return True
        except AssertionError:
            return False

    @staticmethod
    def is_type(value, kind):
        if kind == "null":
            return value is None
        if kind == "boolean":
            return isinstance(value, bool)
        if kind in ("integer", "number"):
            return isinstance(value, int if kind == "integer" else (int, float)) and \
                not isinstance(value, bool)
        return isinstance(value, {"string": str, "object": dict, "array": list}[kind])
