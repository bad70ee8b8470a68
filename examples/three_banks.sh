#!/usr/bin/env bash
# Three banks fit once, the hub trains one model: the commands of the demo, one by one.
# Usage: examples/three_banks.sh FOLDER     (a folder made by examples/make_tables.py; `distill` on the PATH)
set -euo pipefail
folder=${1:?name the folder that examples/make_tables.py made}
epsilon=2 delta=1e-5
banks=(retail_bank credit_union online_lender)
bundles=()
export DISTILL_STATE="$folder/state"  # made-up tables do not belong among what is known of your own (see docs/explanation/privacy.md)

for bank in "${banks[@]}"; do
  # At each bank: a project with key and ledger, a grant, one fit. Only the bundle leaves.
  distill init "$folder/$bank" --data "$folder/$bank.parquet" --schema "$folder/schema.json" --name "$bank"
  distill ledger grant --epsilon "$epsilon" --delta "$delta" --reason "example on made-up data" --project "$folder/$bank"
  distill plan --epsilon "$epsilon" --project "$folder/$bank"
  distill fit --epsilon "$epsilon" --delta "$delta" --out "$folder/$bank.distill" --project "$folder/$bank"
  bundles+=("$folder/$bank.distill")
done

# At the hub: whose bundles it takes (each bank says its key by another way), then bundles in, a model and a report out.
for bank in "${banks[@]}"; do
  distill hub trust add "$folder/$bank/keys/operator.pub" --name "$bank" --project "$folder"
done
distill train-global "${bundles[@]}" --out "$folder/hub" --project "$folder"
distill hub heads --project "$folder" # what the hub has seen of each bank's ledger; an older copy would be refused
distill evaluate "$folder/hub" "$folder/held_out.parquet"

# The privacy officer of each bank: does every epsilon follow from the recorded noise?
for bank in "${banks[@]}"; do
  distill ledger verify --project "$folder/$bank"
done
