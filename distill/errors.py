"""Every error this project raises on purpose.

DistillError
 ├ ConfigError      a setting, an option or the project file is wrong
 ├ SchemaError      the public schema is wrong or not confirmed
 ├ DataError        a table cannot be read or does not fit its schema
 ├ BudgetError      a release would cost more than was granted, or less than is useful
 │  └ CopiedTableError       the table has a budget under another ledger already
 ├ UnpaidReadError  private rows were asked for without a reserved event that pays
 ├ KeyFileError     a signing or verifying key is missing, unreadable or the wrong one
 ├ LedgerError      the ledger is missing, belongs elsewhere or is in use
 │  └ LedgerTamperedError    the chain of entries does not verify
 ├ StateError       what is kept on this machine of known tables cannot be used
 ├ BundleError      a bundle cannot be read
 │  ├ BundleTamperedError    not what an institution's own software wrote; one class for each kind of attack:
 │  │  ├ BundleLayoutError     bytes that the format does not put there, or that are gone
 │  │  ├ BundleMemberError     path tricks; unknown, missing, doubled or too many members
 │  │  ├ BundleBombError       unpacks to too much, or to something else than it says
 │  │  ├ BundleSignatureError  not signed, or by another key than expected
 │  │  ├ BundleManifestError   the manifest is not in the form of one
 │  │  ├ BundleDigestError     a member has another size or digest than the manifest says
 │  │  ├ BundleClaimError      the manifest claims what its events or the ledger's entries do not bear out
 │  │  ├ BundleSamplesError    hostile Parquet, or rows that do not fit the schema
 │  │  └ BundleTensorError     hostile safetensors, or values that are not finite
 │  ├ BundleVersionError     written in another version of the format
 │  ├ BundleMismatchError    bundles (or a bundle and a model) describe different schemas
 │  ├ RehearsalBundleError   a rehearsal is offered where a private release is needed
 │  ├ OutweighedError        no bundle is left that counts for anything
 │  ├ UntrustedSignerError   nobody vouched for the key that signed
 │  └ LedgerConflictError    bundles of one data set contradict each other: budget may have been spent twice
 │     └ LedgerForkError     their ledgers part ways
 ├ PriorError       a hub's global prior cannot be read or written
 │  ├ PriorTamperedError     not what a hub's own software wrote, or not as its signer wrote it
 │  ├ PriorVersionError      written in another version of the format
 │  ├ UntrustedPriorError    signed by another key than the hub's
 │  ├ PriorMismatchError     describes another schema
 │  └ RehearsalPriorError    made from a rehearsal, and offered to a private release
 ├ HubFileError     the hub's memory cannot be used
 ├ RegistryError    the registry of models cannot be used
 │  └ RegistryTamperedError  it holds something else than was recorded
 └ ModelError       a trained model cannot be read or does not fit the data

Messages name what, where and the mend. They quote public values (names, bounds, budgets), never a record.
"""


class DistillError(Exception):
    """Base of all errors that are meant for the user; the command line shows one line and exits with 2."""


class ConfigError(DistillError):
    """A setting, an option or the project file is wrong."""


class SchemaError(DistillError):
    """The public schema is wrong or not confirmed."""


class DataError(DistillError):
    """A table cannot be read or does not fit its schema."""


class BudgetError(DistillError):
    """A release would cost more than was granted, or the budget is too small for the table."""


class CopiedTableError(BudgetError):
    """The table has a budget under another ledger already, and no officer declared the two linked."""


class UnpaidReadError(DistillError):
    """Private rows were asked for without a reserved event that pays for the read."""


class KeyFileError(DistillError):
    """A key file is missing, unreadable, exposed or the wrong one."""


class LedgerError(DistillError):
    """The ledger is missing, belongs to another data set or is in use."""


class LedgerTamperedError(LedgerError):
    """The ledger's chain, a signature or an epsilon does not verify."""


class StateError(DistillError):
    """What is kept on this machine of known tables cannot be read or written, or others can read it."""


class BundleError(DistillError):
    """A bundle cannot be read."""


class BundleTamperedError(BundleError):
    """A bundle is not what an institution's own software wrote; its subclasses say in what way."""


class BundleLayoutError(BundleTamperedError):
    """Bytes before, between or after the members, a foreign header (links, directories, encryption), or a cut."""


class BundleMemberError(BundleTamperedError):
    """A member's name plays with paths, or members are unknown, missing, doubled, misplaced or too many."""


class BundleBombError(BundleTamperedError):
    """A member is too large, is packed too well, or unpacks to something else than its header says."""


class BundleSignatureError(BundleTamperedError):
    """The signature does not match the contents, or is by another key than expected."""


class BundleManifestError(BundleTamperedError):
    """The manifest is not canonical JSON, or has not the fields and types of a manifest."""


class BundleDigestError(BundleTamperedError):
    """A member has another size or SHA-256 than the manifest says."""


class BundleClaimError(BundleTamperedError):
    """What the manifest claims disagrees with itself, with the cost of its events or with the ledger's entries."""


class BundleSamplesError(BundleTamperedError):
    """The samples are no plain Parquet file of the stated columns, or a value does not fit the schema."""


class BundleTensorError(BundleTamperedError):
    """A tensor file's header does not describe its bytes, or a value is not finite."""


class BundleVersionError(BundleError):
    """The bundle is of a newer or an older format than this software reads."""


class BundleMismatchError(BundleError):
    """Bundles, or a bundle and a model, describe different schemas."""


class RehearsalBundleError(BundleError):
    """A rehearsal (not private) is offered where a private release is needed."""


class OutweighedError(BundleError):
    """Every bundle contradicts itself or the others: none is left that counts for anything."""


class UntrustedSignerError(BundleError):
    """Nobody vouched for the key that signed a bundle."""


class LedgerConflictError(BundleError):
    """A bundle contradicts another one of its data set: budget may have been spent twice."""


class LedgerForkError(LedgerConflictError):
    """Bundles of one data set come from ledgers that part ways: rolled back, copied or made anew."""


class PriorError(DistillError):
    """A hub's global prior cannot be read or written."""


class PriorTamperedError(PriorError):
    """A global prior is not what a hub's own software wrote, or not as its signer wrote it."""


class PriorVersionError(PriorError):
    """The global prior is of a newer format than this software reads."""


class UntrustedPriorError(PriorError):
    """The global prior is signed by another key than the hub's."""


class PriorMismatchError(PriorError):
    """The global prior describes another schema than the institution's."""


class RehearsalPriorError(PriorError):
    """The global prior was made from a rehearsal (not private) and is offered to a private release."""


class HubFileError(DistillError):
    """The file that holds the hub's memory is damaged, in use or cannot be written."""


class RegistryError(DistillError):
    """The registry of models is missing, in use or cannot be read or written."""


class RegistryTamperedError(RegistryError):
    """The registry of models is damaged, or a version or a file in it is not what was recorded."""


class ModelError(DistillError):
    """A trained model cannot be read or does not fit the data."""
