-- Health of a KymaBinding (bindings.kyma-project.io) for Argo CD. The README says how it gets there.
local hs = { status = "Progressing", message = "Waiting for the controller" }

if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "Being removed"
  return hs
end

local status = obj.status
if status == nil or status.conditions == nil then
  return hs
end
-- What is said of an older generation says nothing of this one.
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  return hs
end

local ready, stalled
for _, condition in ipairs(status.conditions) do
  if condition.type == "Ready" then
    ready = condition
  elseif condition.type == "Stalled" then
    stalled = condition
  end
end

if stalled ~= nil and stalled.status == "True" then
  hs.status = "Degraded"
  hs.message = stalled.reason .. ": " .. stalled.message
elseif ready ~= nil then
  hs.message = ready.message
  if ready.status == "True" then
    hs.status = "Healthy"
  elseif ready.reason == "InstanceSuspended" then
    hs.status = "Suspended"
  end
end
return hs
