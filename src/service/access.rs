//! What each kind of caller may call: one table for all RPCs.
//!
//! A row says who gets past the door. What a caller may see behind it (the own tenant) is up to the
//! queries, which all name the tenant.

use super::caller::Caller;
use super::error::ServiceError;

/// Who may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Everybody; credentials are not looked at.
    Anyone,
    /// Whoever holds an access token.
    Users,
}

/// The table: each RPC by its full name, as in the path of a call.
const RULES: [(&str, Rule); 3] = [
    ("identity.v1.IdentityService/Register", Rule::Anyone),
    ("identity.v1.IdentityService/Login", Rule::Anyone),
    ("identity.v1.IdentityService/GetUser", Rule::Users),
];

/// The rule of an RPC, if the table has a row for it.
pub fn rule(rpc: &str) -> Option<Rule> {
    RULES.iter().find(|(name, _)| *name == rpc).map(|(_, rule)| *rule)
}

/// Lets `caller` through the door of an RPC, or not.
///
/// # Errors
/// [`ServiceError::TokenInvalid`] when the RPC wants a user and the caller is none.
/// [`ServiceError::Fault`] for an RPC without a row: nobody may call it.
pub fn admit(rpc: &str, caller: &Caller) -> Result<(), ServiceError> {
    match (rule(rpc), caller) {
        (Some(Rule::Anyone), _) | (Some(Rule::Users), Caller::User(_)) => Ok(()),
        (Some(Rule::Users), Caller::Anonymous) => Err(ServiceError::TokenInvalid),
        (None, _) => Err(ServiceError::Fault(format!("{rpc} has no access rule"))),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// The RPCs of the contract, by their full names.
    fn rpcs() -> Vec<String> {
        let set = FileDescriptorSet::decode(crate::proto::DESCRIPTOR_SET).unwrap();
        let ours = set.file.iter().filter(|file| file.package() == "identity.v1");
        let services = ours.flat_map(|file| {
            file.service
                .iter()
                .map(move |service| (format!("{}.{}", file.package(), service.name()), service))
        });
        services
            .flat_map(|(name, service)| {
                service.method.iter().map(move |method| format!("{name}/{}", method.name()))
            })
            .collect()
    }

    #[test]
    fn every_rpc_has_exactly_one_row() {
        let mut expected = rpcs();
        let mut rows: Vec<_> = RULES.iter().map(|(rpc, _)| (*rpc).to_owned()).collect();
        expected.sort();
        rows.sort();
        assert!(!expected.is_empty());
        assert_eq!(rows, expected);
    }

    #[test]
    fn an_rpc_without_a_row_is_nobodys() {
        let result = admit("identity.v1.IdentityService/Unheard", &Caller::Anonymous);
        assert!(matches!(result, Err(ServiceError::Fault(_))));
    }
}
