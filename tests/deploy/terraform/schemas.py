"""Schemas of the providers, read from the packages that CDK for Terraform generates from them.

In: the packed npm packages, and the types that our configurations use. Out: one JSON file a provider,
for stub.py. Terraform's registry is not asked: where the tests run it may not be reached.

What the generated code says: `synthesizeHclAttributes` and each `...ToHclTerraform` list the arguments
with their types; in the `.d.ts` a property without `?` is required; a comment `name - computed: true`
marks what the provider itself fills in. It does not say which values are allowed, nor what optional
argument is filled in when it is left out: `id` is, the others are taken as they stand.
"""

import json
import re
import sys
import tarfile

ENTRY = re.compile(
    r"^\s+(?P<name>[a-z0-9_]+): \{\n"
    r"\s+value: (?P<value>.+),\n"
    r"\s+isBlock: (?P<block>true|false),\n"
    r'\s+type: "(?P<kind>\w+)",\n'
    r'\s+storageClassType: "(?P<of>\w+)",',
    re.M,
)
COMPUTED = re.compile(r"// (?P<name>[a-z0-9_]+) - computed: true, optional: false")
SCALARS = {"string": "string", "boolean": "bool", "number": "number", "any": "dynamic"}
GETTERS = [
    (r"getStringAttribute\('{0}'\)", "string"),
    (r"getNumberAttribute\('{0}'\)", "number"),
    (r"getBooleanAttribute\('{0}'\)", "bool"),
    (r"tolist\(this\.getListAttribute\('{0}'\)\)", ["set", "string"]),
    (r"tolist\(this\.getNumberListAttribute\('{0}'\)\)", ["set", "number"]),
    (r"getListAttribute\('{0}'\)", ["list", "string"]),
    (r"getNumberListAttribute\('{0}'\)", ["list", "number"]),
    (r"new cdktf\.StringMap\(this, \"{0}\"\)", ["map", "string"]),
    (r"new cdktf\.NumberMap\(this, \"{0}\"\)", ["map", "number"]),
    (r"new cdktf\.BooleanMap\(this, \"{0}\"\)", ["map", "bool"]),
    (r"new cdktf\.AnyMap\(this, \"{0}\"\)", ["map", "dynamic"]),
]


class Source:
    """The generated code of one resource or data source."""

    def __init__(self, script, types):
        self.script = script
        self.is_data = "extends cdktf.TerraformDataSource" in script
        self.classes = dict(re.findall(r"^class (\w+) extends [^\n]*\{\n(.*?)^\}", script, re.M | re.S))
        self.functions = dict(
            re.findall(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}", script, re.M | re.S)
        )
        self.interfaces = dict(
            re.findall(r"^export interface (\w+)[^\n]*\{\n(.*?)^\}", types, re.M | re.S)
        )

    def required(self, interface, prop):
        body = self.interfaces.get(interface, "")
        return re.search(rf"^    readonly {re.escape(prop)}: ", body, re.M) is not None

    def block(self, entries, interface, holder):
        """One block: its arguments, the blocks inside, and what the provider fills in."""
        attributes, blocks = {}, {}
        for entry in ENTRY.finditer(entries):
            prop = re.search(r"(?:struct\.|this\._)(\w+)", entry["value"]).group(1)
            needed = self.required(interface, prop)
            if entry["block"] == "true":
                self.inner(entry, needed, attributes, blocks)
            else:
                attributes[entry["name"]] = self.argument(entry, needed)
        for name in COMPUTED.findall(self.classes.get(holder, "")):
            if name not in attributes and name not in blocks:
                attributes[name] = {"type": self.filled_in(holder, name), "computed": True}
        return {"attributes": attributes, "blocks": blocks}

    def inner(self, entry, needed, attributes, blocks):
        function = re.search(r"(\w+)ToHclTerraform", entry["value"]).group(1)
        interface = function[0].upper() + function[1:]
        many = "listMapperHcl" in entry["value"]
        inside = self.block(self.functions[function], interface, f"{interface}OutputReference")
        nesting = {"list": "list", "set": "set", "map": "map", "struct": "single"}[entry["kind"]]
        is_argument = ", false)(" in entry["value"] or (
            nesting in ("single", "map") and entry["name"] != "timeouts"
        )
        if is_argument:
            attributes[entry["name"]] = {
                "nested": {"nesting": nesting, "attributes": inside["attributes"]},
                "required" if needed else "optional": True,
            }
        else:
            blocks[entry["name"]] = {
                "nesting": nesting,
                "min": 1 if needed and nesting != "single" else 0,
                "max": 0 if many or nesting == "single" else 1,
                "block": inside,
            }

    def argument(self, entry, needed):
        of, kind = entry["of"], entry["kind"]
        if kind == "simple":
            found = SCALARS.get(of, "string")
        else:
            found = [kind, SCALARS.get(re.sub(r"(List|Map|Set)$", "", of), "string")]
        if needed:
            return {"type": found, "required": True}
        # What a data source is not asked for, it tells.
        filled = self.is_data or entry["name"] == "id"
        return {"type": found, "optional": True, "computed": filled}

    def filled_in(self, holder, name):
        body = self.classes[holder]
        for pattern, kind in GETTERS:
            if re.search(pattern.replace("{0}", name), body):
                return kind
        made = re.search(rf'new (\w+)\(this, "{name}"(?:, (true|false))?\)', body)
        if not made:
            return "string"
        inner = re.sub(r"(List|Map|OutputReference)$", "", made.group(1))
        reference = f"{inner}OutputReference"
        fields = COMPUTED.findall(self.classes.get(reference, ""))
        shape = ["object", {field: self.filled_in(reference, field) for field in fields}]
        if made.group(1).endswith("List"):
            return ["set" if made.group(2) == "true" else "list", shape]
        return ["map", shape] if made.group(1).endswith("Map") else shape

    def schema(self):
        name = re.search(r"^class (\w+) extends cdktf\.Terraform(?:Resource|DataSource)", self.script, re.M).group(1)
        entries = self.classes[name].split("synthesizeHclAttributes() {")[1]
        return self.block(entries, f"{name}Config", name)


def folder(provider, kind, name):
    stem = name.removeprefix(f"{provider}_").replace("_", "-")
    return stem if kind == "resources" else f"data-{provider}-{stem}"


def read(package, provider, wanted):
    """The schemas of the wanted types ({"resources": [...], "data": [...]}) from a packed package."""
    folders = {folder(provider, kind, name): (kind, name) for kind, names in wanted.items() for name in names}
    scripts, types = {}, {}
    with tarfile.open(package) as archive:
        for member in archive:
            # The code of large resources is dealt to several files of their folder.
            part = member.name.removeprefix("package/lib/").split("/")[0]
            if part not in folders or not member.name.endswith((".js", ".d.ts")):
                continue
            texts = types if member.name.endswith(".d.ts") else scripts
            texts[part] = texts.get(part, "") + archive.extractfile(member).read().decode() + "\n"
    found = {"resources": {}, "data": {}}
    for part, (kind, name) in folders.items():
        if part not in scripts:
            # Unknown here is unknown to Terraform too, which says so with the place.
            print(f"schemas: {package} has no {kind} {name}", file=sys.stderr)
            continue
        found[kind][name] = Source(scripts[part], types[part]).schema()
    return found


def main():
    package, provider, wanted, out = sys.argv[1:]
    with open(wanted, encoding="utf-8") as file:
        types = json.load(file)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(read(package, provider, types), file)


if __name__ == "__main__":
    main()
