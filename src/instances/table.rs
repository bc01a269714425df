//! Facts about watched objects, by name and by the instance they describe.

use std::collections::{HashMap, HashSet};

use kube::runtime::watcher::Event;

/// One kind of object. A relist replaces the whole table, so that a deletion missed while the
/// watch was down is found.
#[derive(Debug)]
pub struct Table<F> {
    facts: HashMap<String, (String, F)>,
    by_instance: HashMap<String, HashSet<String>>,
    relisted: HashSet<String>,
    synced: bool,
}

impl<F> Default for Table<F> {
    fn default() -> Self {
        Self { facts: HashMap::new(), by_instance: HashMap::new(), relisted: HashSet::new(), synced: false }
    }
}

impl<F> Table<F> {
    /// Whether a whole list was seen.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// All that describes an instance.
    pub fn of(&self, instance: &str) -> Vec<&F> {
        let names = self.by_instance.get(instance).into_iter().flatten();
        names.filter_map(|name| Some(&self.facts.get(name)?.1)).collect()
    }

    /// All instances that anything describes.
    pub fn instances(&self) -> Vec<String> {
        self.by_instance.keys().cloned().collect()
    }

    /// Takes in one event and returns the instances it touches. `read` gives the name of an
    /// object and, where it describes an instance, that instance and the facts.
    pub fn take<K>(
        &mut self,
        event: Event<K>,
        read: impl Fn(K) -> (String, Option<(String, F)>),
    ) -> Vec<String> {
        match event {
            Event::Init => {
                self.relisted.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let (name, facts) = read(object);
                self.relisted.insert(name.clone());
                self.put(name, facts)
            }
            Event::InitDone => {
                self.synced = true;
                let relisted = std::mem::take(&mut self.relisted);
                let gone: Vec<_> =
                    self.facts.keys().filter(|name| !relisted.contains(*name)).cloned().collect();
                gone.into_iter().flat_map(|name| self.put(name, None)).collect()
            }
            Event::Apply(object) => {
                let (name, facts) = read(object);
                self.put(name, facts)
            }
            Event::Delete(object) => self.put(read(object).0, None),
        }
    }

    fn put(&mut self, name: String, facts: Option<(String, F)>) -> Vec<String> {
        let mut touched = Vec::new();
        if let Some((instance, _)) = self.facts.remove(&name) {
            if let Some(names) = self.by_instance.get_mut(&instance) {
                names.remove(&name);
                if names.is_empty() {
                    self.by_instance.remove(&instance);
                }
            }
            touched.push(instance);
        }
        if let Some((instance, facts)) = facts {
            self.by_instance.entry(instance.clone()).or_default().insert(name.clone());
            if !touched.contains(&instance) {
                touched.push(instance.clone());
            }
            self.facts.insert(name, (instance, facts));
        }
        touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read((name, instance): (&str, &str)) -> (String, Option<(String, u8)>) {
        (name.to_owned(), (!instance.is_empty()).then(|| (instance.to_owned(), 1)))
    }

    #[test]
    fn an_object_that_moves_touches_both_instances() {
        let mut table = Table::default();
        assert_eq!(table.take(Event::Apply(("s", "a")), read), ["a"]);
        assert_eq!(table.take(Event::Apply(("s", "b")), read), ["a", "b"]);
        assert!(table.of("a").is_empty());
        assert_eq!(table.take(Event::Delete(("s", "b")), read), ["b"]);
        assert!(table.instances().is_empty());
    }

    #[test]
    fn a_relist_drops_what_it_no_longer_has() {
        let mut table = Table::default();
        table.take(Event::Apply(("gone", "a")), read);
        for event in [Event::Init, Event::InitApply(("stays", "b"))] {
            table.take(event, read);
        }
        assert!(!table.is_synced());
        assert_eq!(table.take(Event::InitDone, read), ["a"]);
        assert!(table.is_synced());
        assert_eq!(table.instances(), ["b"]);
    }
}
