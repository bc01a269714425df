//! The playground.

fn main() {
    e2e::operator::become_operator_if_asked();
}
