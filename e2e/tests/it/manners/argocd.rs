//! Argo CD's way to run a health check: Lua 5.1 with few libraries, the object as `obj`, a table back.

use mlua::{Lua, LuaOptions, StdLib, Table};
use serde_json::Value;

/// The health check that is shipped.
pub const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/argocd-health.lua");

/// What Argo CD knows of health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Healthy,
    Progressing,
    Degraded,
    Suspended,
}

pub struct Argo {
    script: String,
}

impl Argo {
    pub fn new() -> Self {
        Self { script: std::fs::read_to_string(PATH).unwrap() }
    }

    /// Health and message.
    pub fn health(&self, object: &Value) -> (Health, String) {
        let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING, LuaOptions::default()).unwrap();
        lua.globals().set("obj", lua_value(&lua, object)).unwrap();
        let found: Table = lua.load(&self.script).eval().unwrap();
        let health = match found.get::<String>("status").unwrap().as_str() {
            "Healthy" => Health::Healthy,
            "Progressing" => Health::Progressing,
            "Degraded" => Health::Degraded,
            "Suspended" => Health::Suspended,
            other => panic!("Argo CD knows no {other}"),
        };
        (health, found.get("message").unwrap())
    }
}

fn lua_value(lua: &Lua, value: &Value) -> mlua::Value {
    match value {
        Value::Null => mlua::Value::Nil,
        Value::Bool(value) => mlua::Value::Boolean(*value),
        // All numbers are floating in 5.1.
        Value::Number(value) => mlua::Value::Number(value.as_f64().unwrap()),
        Value::String(value) => mlua::Value::String(lua.create_string(value).unwrap()),
        Value::Array(values) => {
            let values = values.iter().map(|value| lua_value(lua, value));
            mlua::Value::Table(lua.create_sequence_from(values).unwrap())
        }
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.as_str(), lua_value(lua, value)));
            mlua::Value::Table(lua.create_table_from(fields).unwrap())
        }
    }
}
