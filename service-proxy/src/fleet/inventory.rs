//! `inventory`: the devices as Ansible wants a dynamic inventory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::identity::{DeviceId, StreamName};
use serde_json::{Map, Value, json};

use super::print::Printer;
use super::{Fleet, FleetError};
use crate::cli::InventoryArgs;
use crate::config::ServiceConnection;
use crate::host_names::host_of;
use crate::hub_api::select;
use crate::openssh::proxy_command;

impl Fleet {
    pub(super) async fn inventory(
        &self,
        args: InventoryArgs,
        target: &StreamName,
        connection: &ServiceConnection,
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        let program = std::env::current_exe().map_err(FleetError::OwnFile)?;
        let maker = Maker {
            program: &program,
            connection,
            target,
            user: args.ssh.user.as_deref(),
        };
        let one = args.host.as_deref();
        let one = one.map(|host| format!("deviceId = {}", select::quoted(host)));
        let condition = one.as_deref().or(args.condition.as_deref());
        let text = select::devices("*", condition);
        let mut query = self.api.query(&text);
        let mut inventory = Inventory::default();
        while let Some(page) = query
            .next_page()
            .await
            .map_err(self.failed(format!("list the devices with `{text}`")))?
        {
            for twin in &page {
                inventory.add(twin, &args.group_by, &maker);
            }
        }
        match &args.host {
            Some(host) => out.json(&inventory.variables_of(host)).await,
            None => out.json(&inventory.into_json()).await,
        }
    }
}

/// Makes the variables of a device.
struct Maker<'a> {
    program: &'a Path,
    connection: &'a ServiceConnection,
    target: &'a StreamName,
    user: Option<&'a str>,
}

impl Maker<'_> {
    fn variables(&self, device: &DeviceId, twin: &Value) -> Value {
        let host = host_of(device);
        let proxy = proxy_command::to_device(self.program, self.connection, device, self.target);
        // Ansible splits this as a shell does.
        let options = [
            format!("ProxyCommand={proxy}"),
            format!("HostKeyAlias={host}"),
        ];
        let options = options.map(|option| format!("-o {}", proxy_command::quoted(&option)));
        let mut variables = json!({
            "ansible_host": host,
            "ansible_ssh_common_args": untemplated(options.join(" ").into()),
            "iothub_device_id": device.as_str(),
            "iothub_connected": twin.get("connectionState").and_then(Value::as_str) == Some("Connected"),
            "iothub_tags": untemplated(twin.get("tags").cloned().unwrap_or_else(|| json!({}))),
        });
        if let (Some(user), Some(fields)) = (self.user, variables.as_object_mut()) {
            fields.insert("ansible_user".to_owned(), user.into());
        }
        variables
    }
}

/// Marks texts in which Ansible would find an expression: it evaluates those of an inventory.
fn untemplated(value: Value) -> Value {
    match value {
        Value::String(text) if ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark)) => {
            json!({ "__ansible_unsafe": text })
        }
        Value::Array(values) => values.into_iter().map(untemplated).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            Value::Object(
                fields
                    .map(|(name, value)| (name, untemplated(value)))
                    .collect(),
            )
        }
        value => value,
    }
}

/// Hosts, their variables and their groups.
#[derive(Default)]
struct Inventory {
    variables: Map<String, Value>,
    groups: BTreeMap<String, BTreeSet<String>>,
    ungrouped: BTreeSet<String>,
}

impl Inventory {
    fn add(&mut self, twin: &Value, group_by: &[String], maker: &Maker<'_>) {
        let id = twin.get("deviceId").and_then(Value::as_str);
        let Some(device) = id.and_then(|id| DeviceId::parse(id).ok()) else {
            return;
        };
        let groups = group_by.iter().filter_map(|path| group(twin, path));
        let mut is_grouped = false;
        for group in groups {
            is_grouped = true;
            let hosts = self.groups.entry(group).or_default();
            hosts.insert(device.to_string());
        }
        if !is_grouped {
            self.ungrouped.insert(device.to_string());
        }
        let variables = maker.variables(&device, twin);
        self.variables.insert(device.to_string(), variables);
    }

    /// Of a host that there is not, none.
    fn variables_of(&self, host: &str) -> Value {
        self.variables
            .get(host)
            .cloned()
            .unwrap_or_else(|| json!({}))
    }

    fn into_json(self) -> Value {
        let mut children: Vec<&str> = self.groups.keys().map(String::as_str).collect();
        children.push("ungrouped");
        let mut document = json!({
            "all": { "children": children },
            "ungrouped": { "hosts": self.ungrouped },
        });
        if let Some(fields) = document.as_object_mut() {
            for (name, hosts) in self.groups {
                fields.insert(name, json!({ "hosts": hosts }));
            }
            fields.insert("_meta".to_owned(), json!({ "hostvars": self.variables }));
        }
        document
    }
}

/// The name of the group for the value that a device has there: `site_berlin` for `tags.site`. There
/// is none for a value that is missing, or is not one value.
fn group(twin: &Value, path: &str) -> Option<String> {
    let mut value = twin;
    for name in path.split('.') {
        value = value.get(name)?;
    }
    let text = match value {
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let name = path.rsplit('.').next()?;
    // What Ansible allows in the names of groups.
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let group: String = format!("{name}_{text}").chars().map(plain).collect();
    Some(match group.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("_{group}"),
        false => group,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(twins: &[Value], group_by: &[&str]) -> Inventory {
        let connection = ServiceConnection {
            options: vec!["--ca-file".to_owned(), "/a b/{{ca}}.pem".to_owned()],
            secrets: Vec::new(),
        };
        let maker = Maker {
            program: Path::new("/bin/service-proxy"),
            connection: &connection,
            target: &StreamName::parse("ssh").unwrap(),
            user: Some("ada"),
        };
        let group_by: Vec<String> = group_by.iter().map(|&path| path.to_owned()).collect();
        let mut inventory = Inventory::default();
        for twin in twins {
            inventory.add(twin, &group_by, &maker);
        }
        inventory
    }

    #[test]
    fn devices_are_hosts_in_groups() {
        let twins = [
            json!({
                "deviceId": "a", "connectionState": "Connected",
                "tags": { "site": "berlin-1", "floor": 3, "x": "{{ lookup('pipe', 'id') }}" },
            }),
            json!({ "deviceId": "b", "tags": { "site": { "name": "x" } } }),
            json!({ "no": "device" }),
        ];
        let inventory = inventory(&twins, &["tags.site", "tags.floor", "connectionState"]);
        let a = inventory.variables_of("a");
        assert_eq!(inventory.variables_of("c"), json!({}));
        let document = inventory.into_json();
        assert_eq!(document["site_berlin_1"], json!({ "hosts": ["a"] }));
        assert_eq!(document["floor_3"], json!({ "hosts": ["a"] }));
        assert_eq!(document["ungrouped"], json!({ "hosts": ["b"] }));
        assert_eq!(document["_meta"]["hostvars"]["a"], a);
        let groups = [
            "connectionState_Connected",
            "floor_3",
            "site_berlin_1",
            "ungrouped",
        ];
        assert_eq!(document["all"]["children"], json!(groups));
        assert_eq!(a["ansible_user"], "ada");
        assert_eq!(a["iothub_connected"], true);
        // Neither a tag nor a path may become an expression.
        assert!(a["iothub_tags"]["x"]["__ansible_unsafe"].is_string());
        let options = a["ansible_ssh_common_args"]["__ansible_unsafe"]
            .as_str()
            .unwrap();
        assert_eq!(
            options,
            r"-o 'ProxyCommand=/bin/service-proxy connect --ca-file '\''/a b/{{ca}}.pem'\'' -- a ssh' -o HostKeyAlias=a"
        );
    }
}
